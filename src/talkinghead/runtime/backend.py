"""What the engine asks of a generator, and the files of `talkinghead export` as one that answers.

Shape suffixes: N frames, W audio windows, D token dimension.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.models.lipsync.decoder import ContextFeatures, GeneratorOutput, ReferenceFeatures
from talkinghead.models.lipsync.generator import set_lip_motion
from talkinghead.types import AVSpec, FloatArray

METADATA = "talkinghead.json"
LIP_HEAD = "lip_head.safetensors"
"""What reads the lips' motion off tokens: weight [40, D] and bias [40], float32."""
EXPORT_VERSION = 3
PARTS = ("encode_reference", "encode_context", "encode_audio", "decode")
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "executorch": ".pte"}
"""Of the files of each format."""
RUNTIMES = {"onnx": "onnx", "torchscript": "torch", "executorch": "executorch"}
"""What reads each format by default."""

Run = Callable[[Sequence[FloatArray]], Sequence[FloatArray]]
"""One part: arrays in, arrays out, in the order that the metadata lists."""


class GeneratorBackend(Protocol):
    """A `LipSyncGenerator`, or what stands for one: see there for the calls' shapes."""

    @property
    def context_frames(self) -> int:
        """Audio windows before the first frame that its tokens depend on."""

    @property
    def lookahead_frames(self) -> int:
        """Audio windows after a frame that its token depends on."""

    @property
    def needs_prosody(self) -> bool:
        """Whether the audio windows must have the prosody's rows below the mel's."""

    @property
    def device(self) -> torch.device:
        """Where its inputs must be."""

    def encode_reference(
        self, reference_face: Tensor, reference_lips: Tensor, emotion: Tensor | None = None, /
    ) -> ReferenceFeatures:
        """A face, once."""

    def encode_context(
        self,
        masked_face: Tensor,
        reference: ReferenceFeatures,
        head_turn: Tensor | None = None,
        /,
    ) -> ContextFeatures:
        """What surrounds N mouths."""

    def encode_audio(self, audio: Tensor, reference: ReferenceFeatures, /) -> Tensor:
        """Audio windows to tokens."""

    def decode_lip_motion(self, tokens: Tensor, /) -> Tensor:
        """What tokens do to closed lips."""

    def set_lip_motion(self, tokens: Tensor, lips: Tensor, share: float = 1.0, /) -> Tensor:
        """Tokens whose lips move as told."""

    def decode(
        self, tokens: Tensor, reference: ReferenceFeatures, context: ContextFeatures, /
    ) -> GeneratorOutput:
        """Tokens to mouths."""


def read_metadata(folder: Path) -> dict[str, Any]:
    """What `talkinghead export` wrote about its files.

    Raises:
        CheckpointError: the folder is no export, or another version's.
    """
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {folder} is a folder without a readable {METADATA}: give a .ckpt or "
            ".safetensors file, or a folder that talkinghead export wrote"
        ) from error
    if metadata.get("export_version") != EXPORT_VERSION:
        raise CheckpointError(
            f"checkpoint {folder} has export_version {metadata.get('export_version')}, this "
            f"version reads {EXPORT_VERSION}: export it again"
        )
    return metadata


class ExportedGenerator:
    """The generator's four calls, each answered by a file. On the CPU, in full precision.

    Args:
        folder: written by `talkinghead export`.
        runtime: "onnx" (ONNX Runtime), "openvino", "torch" (for TorchScript) or "executorch".

    Attributes:
        spec: that the model was trained for.
        context_frames, lookahead_frames, needs_prosody, device: as a `LipSyncGenerator`'s.

    Raises:
        CheckpointError: the folder is no export, another version's, or a file is broken.
        DependencyError: the runtime is not installed.
        UsageError: the runtime does not read the folder's format.
    """

    def __init__(self, folder: str | Path, runtime: str) -> None:
        folder = Path(folder)
        metadata = read_metadata(folder)
        self.spec = AVSpec.from_dict(metadata["av"])
        self.context_frames: int = metadata["context_frames"]
        self.lookahead_frames: int = metadata["lookahead_frames"]
        self.needs_prosody: bool = metadata["needs_prosody"]
        self.device = torch.device("cpu")
        self._max_windows: int | None = metadata.get("max_windows")
        self._inputs = {part: listed["inputs"] for part, listed in metadata["parts"].items()}
        load, suffix = loader_of(runtime), SUFFIXES[metadata["format"]]
        if suffix not in _READS[runtime]:
            raise UsageError(
                f"checkpoint {folder} is in the format {metadata['format']}, which "
                f"backend={runtime} does not read: choose backend=auto, or export it as "
                f"{' or '.join(f for f, s in SUFFIXES.items() if s in _READS[runtime])}"
            )
        try:
            head = load_file(folder / LIP_HEAD)
            self._lip_head = head["weight"], head["bias"]
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(
                f"{folder / LIP_HEAD} cannot be read ({error}): export it again"
            ) from error
        self._parts = {part: load(folder / f"{part}{suffix}") for part in PARTS}

    def encode_reference(
        self, reference_face: Tensor, reference_lips: Tensor, emotion: Tensor | None = None
    ) -> ReferenceFeatures:
        """A face [1, 3, H, W] in [0, 1] and its lips [1, 20, 2], canonical pixels.

        An emotion, int64 [1], counts where the generator has them.
        """
        inputs = [reference_face, reference_lips]
        if "emotion" in self._inputs["encode_reference"]:
            inputs.append(torch.zeros(1, dtype=torch.long) if emotion is None else emotion)
        token, mouth, lips, masked_face, *maps = self._run("encode_reference", *inputs)
        return ReferenceFeatures(token, mouth, lips, masked_face, maps)

    def encode_context(
        self,
        masked_face: Tensor,
        reference: ReferenceFeatures,
        head_turn: Tensor | None = None,
    ) -> ContextFeatures:
        """Current faces [N, 3, H / 2, W / 2] in [0, 1], masked; degrees [N, 3] as `emotion`."""
        inputs = [masked_face, reference.masked_face]
        if "head_turn" in self._inputs["encode_context"]:
            inputs.append(torch.zeros(len(masked_face), 3) if head_turn is None else head_turn)
        token, *maps = self._run("encode_context", *inputs)
        return ContextFeatures(token, maps)

    def encode_audio(self, audio: Tensor, reference: ReferenceFeatures) -> Tensor:
        """Windows [1, W, C, K] to tokens [1, W, D]."""
        past, ahead, count = self.context_frames, self.lookahead_frames, audio.shape[1]
        # With the windows that its tokens depend on, a stretch gives what the whole gives.
        step = self._max_windows - past - ahead if self._max_windows else count
        stretches = []
        for start in range(0, count, step):
            first = max(0, start - past)
            heard = audio[:, first : start + step + ahead]
            (tokens,) = self._run("encode_audio", heard, reference.token)
            stretches.append(tokens[:, start - first : start - first + step])
        return torch.cat(stretches, dim=1)

    def decode_lip_motion(self, tokens: Tensor) -> Tensor:
        """What tokens [..., D] do to closed lips, [..., 20, 2]: see `LipSyncGenerator`."""
        return F.linear(tokens, *self._lip_head).unflatten(-1, (-1, 2))

    def set_lip_motion(self, tokens: Tensor, lips: Tensor, share: float = 1.0) -> Tensor:
        """Tokens [..., D] whose lips move as told, [..., 20, 2]: see `LipSyncGenerator`."""
        return set_lip_motion(tokens, lips, share, *self._lip_head)

    def decode(
        self, tokens: Tensor, reference: ReferenceFeatures, context: ContextFeatures
    ) -> GeneratorOutput:
        """Tokens [N, D] to frames; `context` holds N entries, or one for all."""
        # The files want an entry a frame: a graph whose axes may be 1 or N is not to be had.
        surrounding = (t.expand(len(tokens), *t.shape[1:]) for t in (context.token, *context.maps))
        known = (reference.token, reference.mouth, reference.lips, *reference.maps)
        inputs = (tokens, *known, *surrounding)
        return GeneratorOutput(*self._run("decode", *inputs))

    def _run(self, part: str, *inputs: Tensor) -> list[Tensor]:
        outputs = self._parts[part]([np.ascontiguousarray(t.numpy()) for t in inputs])
        return [torch.from_numpy(output) for output in outputs]


def loader_of(runtime: str) -> Callable[[Path], Run]:
    """How a runtime opens one file.

    Raises:
        DependencyError: it is not installed.
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


def _onnx() -> Callable[[Path], Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin for more work take the cores from the pipeline's other stages.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3

    def load(path: Path) -> Run:
        session = onnxruntime.InferenceSession(
            _read(path), options, providers=["CPUExecutionProvider"]
        )
        names = [tensor.name for tensor in session.get_inputs()]
        return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))

    return load


def _openvino() -> Callable[[Path], Run]:
    import openvino

    core = openvino.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }

    def load(path: Path) -> Run:
        compiled = core.compile_model(core.read_model(_read(path)), "CPU", options)
        own = threading.local()  # A request serves one thread at a time.

        def run(inputs: Sequence[FloatArray]) -> Sequence[FloatArray]:
            if not hasattr(own, "request"):
                own.request = compiled.create_infer_request()
            return list(own.request.infer(list(inputs)).values())

        return run

    return load


def _torch() -> Callable[[Path], Run]:
    def load(path: Path) -> Run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Deprecated, for years to come.
            module = torch.jit.load(str(path), map_location="cpu")

        def run(inputs: Sequence[FloatArray]) -> Sequence[FloatArray]:
            with torch.inference_mode():
                return [t.numpy() for t in module(*map(torch.from_numpy, inputs))]

        return run

    return load


def _executorch() -> Callable[[Path], Run]:
    from executorch.runtime import Runtime

    def load(path: Path) -> Run:
        if _read(path)[4:6] != b"ET":  # Foreign bytes would end the process, not raise.
            raise CheckpointError(f"{path} is no ExecuTorch program: export it again")
        try:
            method = Runtime.get().load_program(path).load_method("forward")
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} cannot be loaded by ExecuTorch ({error}): export it again, with the "
                "version of ExecuTorch that is installed"
            ) from error
        lock = threading.Lock()  # A method works in memory of its own, planned for one call.

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
            # A frame a call: inputs have an entry for each frame, or one for all.
            frames = (
                run_frame([i[n : n + 1] if len(i) > 1 else i for i in inputs])
                for n in range(max(map(len, inputs)))
            )
            return [np.concatenate(outputs) for outputs in zip(*frames, strict=True)]

        return run

    return load


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): export it again"
        ) from error


_LOADERS: dict[str, Callable[[], Callable[[Path], Run]]] = {
    "torch": _torch,
    "onnx": _onnx,
    "openvino": _openvino,
    "executorch": _executorch,
}
_READS = {"torch": (".pt",), "onnx": (".onnx",), "openvino": (".onnx",), "executorch": (".pte",)}
