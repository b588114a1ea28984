"""Write a generator call as an ONNX, TorchScript or ExecuTorch file.

To add a format, write a `CallWriter`, return it from `call_writer`, and add the format to
`SUFFIXES` and `RUNTIMES` in `talkinghead.runtime.exported_generator`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from talkinghead.errors import DependencyError
from talkinghead.runtime.export.generator_calls import GeneratorCall
from talkinghead.runtime.export.tracing import trace

CallWriter: TypeAlias = Callable[[GeneratorCall, tuple[Tensor, ...], Path], None]
"""Write a call, traced with example inputs, to a file."""

_OPSET = 20


def call_writer(format: str) -> CallWriter:
    """Return the function that writes calls in a format.

    Args:
        format: "onnx", "torchscript" or "executorch".

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

            from talkinghead.runtime.export.executorch import write_executorch

            del executorch
            return write_executorch
    except ImportError as error:
        package = "executorch" if format == "executorch" else "'talkinghead[export]'"
        raise DependencyError(
            f"format={format} needs a package that is not installed ({error}): pip install "
            f"{package}, or choose format=torchscript, which needs none"
        ) from error
    return _write_torchscript


def _write_onnx(call: GeneratorCall, inputs: tuple[Tensor, ...], path: Path) -> None:
    for name in ("onnx_ir", "onnxscript"):  # These log every step at INFO.
        logging.getLogger(name).setLevel(logging.WARNING)
    program = torch.onnx.export(
        trace(call, inputs),
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
