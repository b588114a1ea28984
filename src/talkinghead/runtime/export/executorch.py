"""A call of the generator as an ExecuTorch program, for XNNPACK: phones' processors.

It takes one frame a call. With a free number, ExecuTorch 1.5.1 fixes the decoder's to the example's
while it lowers the graph, and several at once are hardly faster (docs/export.md).
"""

from __future__ import annotations

from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor

from talkinghead.errors import CheckpointError
from talkinghead.runtime.export.exporter import PER_FRAME, Call, max_windows, trace


def write_executorch(call: Call, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Writes a call that takes one frame, or up to `max_windows` windows of audio [1, W, C, K].

    Raises:
        CheckpointError: this version of ExecuTorch cannot lower it.
    """
    named = zip(call.inputs, inputs, strict=True)
    examples = [t[:1] if name.startswith(PER_FRAME) else t for name, t in named]
    if "audio" in call.inputs:  # Where a bound gets lost, memory is planned for the example.
        windows = torch.arange(max_windows(call.model)) % examples[0].shape[1]
        examples[0] = examples[0][:, windows]
    try:
        program = trace(call, tuple(examples), one_frame=True)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        path.write_bytes(edge.to_executorch().buffer)
    except RuntimeError as error:
        raise CheckpointError(
            f"ExecuTorch cannot lower {path.stem} ({error}): try another version of it, or "
            "format=onnx"
        ) from error
