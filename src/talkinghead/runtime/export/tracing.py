"""Trace a generator call with `torch.export`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.runtime.export.generator_calls import PER_FRAME_PREFIXES, GeneratorCall

# Upper bound of the dynamic axes, in frames. ExecuTorch plans its memory for this size.
_MAX_FRAMES = 64


def max_windows(model: LipSyncGenerator) -> int:
    """Return the largest number of audio windows that a traced call accepts."""
    return model.context_frames + _MAX_FRAMES + model.lookahead_frames


def trace(
    call: GeneratorCall, inputs: tuple[Tensor, ...], one_frame: bool = False
) -> torch.export.ExportedProgram:
    """Return the graph of a call for one reference.

    Args:
        call: the call.
        inputs: example inputs of the call.
        one_frame: fix the number of frames to one. By default it is dynamic, as the number of
            audio windows always is.
    """
    frames = None if one_frame else {0: torch.export.Dim("frames", min=1, max=_MAX_FRAMES)}
    windows = {1: torch.export.Dim("windows", min=1, max=max_windows(call.model))}
    shapes = [
        frames if name.startswith(PER_FRAME_PREFIXES) else windows if name == "audio" else None
        for name in call.inputs
    ]
    with torch.no_grad():
        program = torch.export.export(call.eval(), inputs, dynamic_shapes=(tuple(shapes),))
    return program.run_decompositions(
        {torch.ops.aten._upsample_bilinear2d_aa.vec: _resize_by_matrices}
    )


def _resize_by_matrices(
    image: Tensor, size: Sequence[int], align_corners: bool, scales: Sequence[float] | None
) -> Tensor:
    """Resize [..., H, W] with antialiasing by two matrix products.

    OpenVINO ignores the `antialias` attribute of ONNX's Resize.
    """
    rows, columns = (_resize_matrix(*s) for s in zip(image.shape[-2:], size, strict=True))
    return rows @ image @ columns.T


def _resize_matrix(size: int, new_size: int) -> Tensor:
    """Return triangle filters [new_size, size] whose rows sum to 1."""
    step = size / new_size
    centres = (torch.arange(new_size) + 0.5) * step
    distance = (torch.arange(size) + 0.5 - centres[:, None]).abs() / max(step, 1.0)
    triangle = (1 - distance).clamp_min(0)
    return triangle / triangle.sum(1, keepdim=True)
