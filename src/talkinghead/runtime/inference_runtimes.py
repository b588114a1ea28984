"""Open one exported file in ONNX Runtime, OpenVINO, TorchScript or ExecuTorch.

To add a runtime, write a function that returns a `FileLoader` and add it to `_LOADERS` and
`READABLE_SUFFIXES`.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from talkinghead.errors import CheckpointError, DependencyError
from talkinghead.types import FloatArray

RunFile: TypeAlias = Callable[[Sequence[FloatArray]], Sequence[FloatArray]]
"""Function that runs an exported call, with inputs and outputs in the order of the metadata."""

FileLoader: TypeAlias = Callable[[Path], RunFile]
"""Function that opens an exported file."""


def file_loader(runtime: str) -> FileLoader:
    """Return the function that opens files in a runtime.

    Args:
        runtime: "onnx" (ONNX Runtime), "openvino", "torch" (TorchScript) or "executorch".

    Raises:
        DependencyError: the runtime is not installed.
    """
    try:
        return _LOADERS[runtime]()
    except ImportError as error:
        package = {"onnx": "onnxruntime"}.get(runtime, runtime)
        extra = "executorch" if runtime == "executorch" else "'talkinghead[export]'"
        raise DependencyError(
            f"backend={runtime} needs {package} ({error}): pip install {extra}, or choose "
            "backend=torch"
        ) from error


def _onnx_loader() -> FileLoader:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Busy-waiting threads would occupy CPU cores that other pipeline stages need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3

    def load(path: Path) -> RunFile:
        with _explained(path):
            session = onnxruntime.InferenceSession(
                _read(path), options, providers=["CPUExecutionProvider"]
            )
        names = [tensor.name for tensor in session.get_inputs()]
        return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))

    return load


def _openvino_loader() -> FileLoader:
    import openvino

    core = openvino.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }

    def load(path: Path) -> RunFile:
        with _explained(path):
            compiled = core.compile_model(core.read_model(_read(path)), "CPU", options)
        thread_local = threading.local()  # Each inference request may be used by only one thread.

        def run(inputs: Sequence[FloatArray]) -> Sequence[FloatArray]:
            if not hasattr(thread_local, "request"):
                thread_local.request = compiled.create_infer_request()
            return list(thread_local.request.infer(list(inputs)).values())

        return run

    return load


def _torchscript_loader() -> FileLoader:
    def load(path: Path) -> RunFile:
        with warnings.catch_warnings(), _explained(path):
            # PyTorch warns that TorchScript is deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            module = torch.jit.load(str(path), map_location="cpu")

        def run(inputs: Sequence[FloatArray]) -> Sequence[FloatArray]:
            with torch.inference_mode():
                return [t.numpy() for t in module(*map(torch.from_numpy, inputs))]

        return run

    return load


def _executorch_loader() -> FileLoader:
    from executorch.runtime import Runtime

    def load(path: Path) -> RunFile:
        # ExecuTorch would abort the process for a file of another type instead of raising an error.
        if _read(path)[4:6] != b"ET":
            raise CheckpointError(f"{path} is not an ExecuTorch program: export it again")
        try:
            method = Runtime.get().load_program(path).load_method("forward")
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} cannot be loaded by ExecuTorch ({error}): export it again, with the "
                "version of ExecuTorch that is installed"
            ) from error
        lock = threading.Lock()  # The memory of a method allows one call at a time.

        def run_frame(inputs: Sequence[FloatArray]) -> list[FloatArray]:
            try:
                with lock:
                    outputs = method.execute([torch.from_numpy(i) for i in inputs])
            except RuntimeError as error:
                shapes = ", ".join(str(list(i.shape)) for i in inputs)
                raise CheckpointError(
                    f"ExecuTorch cannot run {path} on {shapes} ({error}): export it again, or use "
                    "another format"
                ) from error
            return [t.numpy() for t in outputs]

        def run(inputs: Sequence[FloatArray]) -> Sequence[FloatArray]:
            # The program takes one frame per call; each input has N entries, or one for all frames.
            frames = (
                run_frame([i[n : n + 1] if len(i) > 1 else i for i in inputs])
                for n in range(max(map(len, inputs)))
            )
            return [np.concatenate(outputs) for outputs in zip(*frames, strict=True)]

        return run

    return load


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Replace the errors of a runtime about a broken file, whose types differ, by one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{path} is truncated or no exported model ({lines[0][:120]}): export it again"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}): export it again"
        raise CheckpointError(message) from error


_LOADERS: dict[str, Callable[[], FileLoader]] = {
    "torch": _torchscript_loader,
    "onnx": _onnx_loader,
    "openvino": _openvino_loader,
    "executorch": _executorch_loader,
}
READABLE_SUFFIXES = {"torch": ".pt", "onnx": ".onnx", "openvino": ".onnx", "executorch": ".pte"}
"""File suffix that each runtime reads."""
