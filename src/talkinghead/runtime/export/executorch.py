"""Write a generator call as an ExecuTorch program for XNNPACK (ARM and x86 CPUs).

The program takes one frame per call. With a dynamic number of frames, ExecuTorch 1.5.1 specialises
the decoder to the example's number while lowering the graph, and batches are hardly faster
(docs/export.md).
"""

from __future__ import annotations

from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor

from talkinghead.errors import CheckpointError
from talkinghead.runtime.export.generator_calls import PER_FRAME_PREFIXES, GeneratorCall
from talkinghead.runtime.export.tracing import max_windows, trace


def write_executorch(call: GeneratorCall, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Write a call that takes one frame, or up to `max_windows` audio windows [1, W, C, K].

    Raises:
        CheckpointError: this version of ExecuTorch cannot lower the call.
    """
    named = zip(call.inputs, inputs, strict=True)
    examples = [t[:1] if name.startswith(PER_FRAME_PREFIXES) else t for name, t in named]
    if "audio" in call.inputs:
        # The dynamic bound can get lost, and memory is then planned for the example's size.
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
