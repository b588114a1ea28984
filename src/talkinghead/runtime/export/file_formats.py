"""Write a generator call as an ONNX, TorchScript or ExecuTorch file.

To add a format, write a `CallWriter`, return it from `call_writer`, and add the format to
`SUFFIXES` and `RUNTIMES` in `talkinghead.runtime.exported_generator`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from talkinghead.errors import CheckpointError, DependencyError
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.runtime.export.generator_calls import PER_FRAME_PREFIXES, GeneratorCall

CallWriter: TypeAlias = Callable[[GeneratorCall, tuple[Tensor, ...], Path], None]
"""Function that traces a call with example inputs and writes the call to a file."""

_OPSET = 20
# Maximum size of the dynamic axes, in frames. ExecuTorch allocates memory for this size.
_MAX_FRAMES = 64


def call_writer(format: str) -> CallWriter:
    """Return the function that writes calls as "onnx", "torchscript" or "executorch".

    Raises:
        DependencyError: a package that the format needs is missing.
    """
    try:
        if format == "onnx":
            import onnx
            import onnxruntime
            import onnxscript

            del onnx, onnxruntime, onnxscript
            return _write_onnx
        if format == "executorch":
            import executorch.exir

            del executorch
            return _write_executorch
    except ImportError as error:
        package = "executorch" if format == "executorch" else "'talkinghead[export]'"
        raise DependencyError(
            f"format={format} needs a package that is not installed ({error}): pip install "
            f"{package}, or choose format=torchscript, which needs none"
        ) from error
    return _write_torchscript


def _write_onnx(call: GeneratorCall, inputs: tuple[Tensor, ...], path: Path) -> None:
    for name in ("onnx_ir", "onnxscript"):  # These packages log every step at INFO.
        logging.getLogger(name).setLevel(logging.WARNING)
    program = torch.onnx.export(
        _trace(call, inputs),
        (),
        input_names=call.inputs,
        output_names=call.outputs,
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)


def _write_torchscript(call: GeneratorCall, inputs: tuple[Tensor, ...], path: Path) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(call.eval(), inputs, check_trace=False)
    torch.jit.freeze(traced).save(str(path))  # Freezing removes the weights of the other calls.


def _write_executorch(call: GeneratorCall, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Write an ExecuTorch program for XNNPACK (ARM and x86 CPUs).

    The program takes one frame per call. With a dynamic number of frames, ExecuTorch 1.5.1
    specialises the decoder to the example's number of frames while lowering the graph, and batches
    are hardly faster (docs/export.md).
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    named = zip(call.inputs, inputs, strict=True)
    examples = [t[:1] if name.startswith(PER_FRAME_PREFIXES) else t for name, t in named]
    if "audio" in call.inputs:
        # ExecuTorch may ignore the bound of the dynamic axis and allocate memory for the example's
        # size, so the example has the maximum size.
        windows = torch.arange(max_windows(call.model)) % examples[0].shape[1]
        examples[0] = examples[0][:, windows]
    try:
        program = _trace(call, tuple(examples), one_frame=True)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        path.write_bytes(edge.to_executorch().buffer)
    except RuntimeError as error:
        raise CheckpointError(
            f"ExecuTorch cannot lower {path.stem} ({error}): try another version of ExecuTorch, or "
            "format=onnx"
        ) from error


def max_windows(model: LipSyncGenerator) -> int:
    """Return the largest number of audio windows that a traced call accepts."""
    return model.context_frames + _MAX_FRAMES + model.lookahead_frames


def _trace(
    call: GeneratorCall, inputs: tuple[Tensor, ...], one_frame: bool = False
) -> torch.export.ExportedProgram:
    """Return the graph of a call for one reference, traced with example inputs.

    The numbers of audio windows and of frames are dynamic; with `one_frame` the number of frames is
    fixed to one.
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
    """Resize an image [..., H, W] with antialiasing, by two matrix products.

    OpenVINO ignores the `antialias` attribute of ONNX's Resize.
    """
    rows, columns = (_resize_matrix(*s) for s in zip(image.shape[-2:], size, strict=True))
    return rows @ image @ columns.T


def _resize_matrix(size: int, new_size: int) -> Tensor:
    """Return a matrix of triangle filters [new_size, size] in which each row sums to 1."""
    step = size / new_size
    centres = (torch.arange(new_size) + 0.5) * step
    distance = (torch.arange(size) + 0.5 - centres[:, None]).abs() / max(step, 1.0)
    triangle = (1 - distance).clamp_min(0)
    return triangle / triangle.sum(1, keepdim=True)
