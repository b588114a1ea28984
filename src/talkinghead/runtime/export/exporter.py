"""A checkpoint to files that other runtimes read: the generator's four calls, one file each.

Beside them lies `talkinghead.json`: the AVSpec, the names of what goes in and comes out, the
licence, and how far the exported frames are from torch's.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.models.checkpoint import load_generator
from talkinghead.models.lipsync.decoder import ContextFeatures, ReferenceFeatures
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.runtime.backend import (
    EXPORT_VERSION,
    LIP_HEAD,
    METADATA,
    PARTS,
    RUNTIMES,
    SUFFIXES,
    ExportedGenerator,
    GeneratorBackend,
)
from talkinghead.runtime.export.example_inputs import Sample, demo_sample

FORMATS = tuple(SUFFIXES)
QUANTIZE = ("none", "int8")
TOLERANCE = 1e-3
"""How far a pixel in [0, 1] may be from torch's: a quarter of one of 255 levels."""
PER_FRAME = ("masked_face", "head_turn", "tokens", "context")
"""How the names of those inputs begin that have an entry for each frame."""
MIN_PSNR_DB = 30.0
"""Of int8's mouths against torch's: with less, something is broken."""
_OPSET = 20
# How many frames a graph is traced for. ExecuTorch, which plans its memory ahead, holds on to it.
_MAX_LENGTH = 64

Writer = Callable[["Call", tuple[Tensor, ...], Path], None]


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far its mouths are from torch's (in [0, 1], and as PSNR)."""

    path: Path
    num_bytes: int
    max_difference: float
    psnr_db: float


def export_generator(
    checkpoint: str | Path,
    output: str | Path,
    format: str = "onnx",
    quantize: str = "none",
) -> ExportReport:
    """Writes a generator's four calls and what is to be known of them into a folder.

    Args:
        checkpoint: a `.ckpt` or `.safetensors` file, or "default".
        output: the folder; it appears whole or not at all. An earlier export is replaced.
        format: "onnx", "torchscript" or "executorch".
        quantize: "none", or "int8" (ONNX alone).

    Raises:
        CheckpointError: the checkpoint cannot be read, or the export does not do what it does.
        DependencyError: a package that the format needs is missing.
        UsageError: the format or the quantisation is unknown, or the folder holds something else.
    """
    output = Path(output)
    _check_arguments(output, format, quantize)
    write = writer_of(format)
    loaded = load_generator(checkpoint)
    model = cast(LipSyncGenerator, loaded.model).requires_grad_(False)
    sample = demo_sample(loaded.spec, model)
    with _whole_folder(output) as folder:
        calls = {part: Call(model, part) for part in PARTS}
        inputs = example_inputs(model, sample, 3)
        for part, call in calls.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # The exporters' own deprecations.
                write(call, inputs[part], folder / f"{part}{SUFFIXES[format]}")
        head = {"weight": model.lip_head.weight, "bias": model.lip_head.bias}
        save_file(head, folder / LIP_HEAD)
        metadata = {
            "export_version": EXPORT_VERSION,
            "format": format,
            "quantize": quantize,
            **_facts(model, calls, format),
            **{key: loaded.meta.get(key) for key in ("av", "license", "trained_on", "generator")},
        }
        _write_metadata(folder, metadata)
        if quantize == "int8":
            from talkinghead.runtime.export.quantisation import quantise_onnx

            quantise_onnx(folder, example_inputs(model, sample, len(sample.masked_face)))
        difference, psnr_db = compare(ExportedGenerator(folder, RUNTIMES[format]), model, sample)
        _check_quality(difference, psnr_db, quantize)
        _write_metadata(folder, {**metadata, "max_difference": difference, "psnr_db": psnr_db})
    num_bytes = sum(path.stat().st_size for path in output.iterdir())
    return ExportReport(output, num_bytes, difference, psnr_db)


def _facts(model: LipSyncGenerator, calls: Mapping[str, Call], format: str) -> dict[str, Any]:
    """What a runtime needs to know of the calls."""
    limits = {"max_frames": 1, "max_windows": max_windows(model)}
    return {
        "context_frames": model.context_frames,
        "lookahead_frames": model.lookahead_frames,
        "needs_prosody": model.needs_prosody,
        **(limits if format == "executorch" else {}),
        "parts": {p: {"inputs": c.inputs, "outputs": c.outputs} for p, c in calls.items()},
    }


class Call(nn.Module):
    """One of the generator's calls as a module of tensors alone, which is what exporters take.

    Attributes:
        inputs, outputs: the tensors' names, in order. What one part gives, another takes by the
            same name.
    """

    def __init__(self, model: LipSyncGenerator, part: str) -> None:
        super().__init__()
        self.model = model
        self._call: Callable[..., tuple[Tensor, ...]] = getattr(self, f"_{part}")
        maps = [f"reference_map_{i}" for i in range(len(model.decoder.reference_maps))]
        context = ["context_token"]
        context += [f"context_map_{i}" for i in range(len(model.decoder.context_maps))]
        reference = ["reference_token", "reference_mouth", "reference_lips"]
        emotion = ["emotion"] if model.emotion else []
        turn = ["head_turn"] if model.pose else []
        self.inputs, self.outputs = {
            "encode_reference": (
                ["face", "lips", *emotion],
                [*reference, "reference_surroundings", *maps],
            ),
            "encode_context": (["masked_face", "reference_surroundings", *turn], context),
            "encode_audio": (["audio", "reference_token"], ["tokens"]),
            "decode": (
                ["tokens", *reference, *maps, *context],
                ["mouth", "rgb", "warped", "mask", "flow"],
            ),
        }[part]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The part's outputs; see `ExportedGenerator` for the shapes."""
        return self._call(*inputs)

    def _encode_reference(
        self, face: Tensor, lips: Tensor, emotion: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        known = self.model.encode_reference(face, lips, emotion)
        return known.token, known.mouth, known.lips, known.masked_face, *known.maps

    def _encode_context(
        self, masked_face: Tensor, reference: Tensor, head_turn: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        known = _reference(masked_face=reference)
        context = self.model.encode_context(masked_face, known, head_turn)
        return context.token, *context.maps

    def _encode_audio(self, audio: Tensor, token: Tensor) -> tuple[Tensor, ...]:
        return (self.model.encode_audio(audio, _reference(token=token)),)

    def _decode(
        self, tokens: Tensor, token: Tensor, mouth: Tensor, lips: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(self.model.decoder.reference_maps)
        reference = _reference(token=token, mouth=mouth, lips=lips, maps=list(rest[:count]))
        context = ContextFeatures(rest[count], list(rest[count + 1 :]))
        output = self.model.decode(tokens, reference, context)
        return output.mouth, output.rgb, output.warped, output.mask, output.flow


def _reference(**known: Any) -> ReferenceFeatures:
    """A reference of which a call needs no more than this."""
    nothing = torch.empty(0)
    return ReferenceFeatures(
        **{
            **dict.fromkeys(("token", "mouth", "lips", "masked_face"), nothing),
            "maps": [],
            **known,
        }
    )


@torch.inference_mode()
def example_inputs(
    model: LipSyncGenerator, sample: Sample, num_frames: int
) -> dict[str, tuple[Tensor, ...]]:
    """What each part is given when the first frames of a sample are generated."""
    past = model.context_frames
    around = sample.masked_face[:num_frames]
    audio = sample.audio[:, : past + num_frames + model.lookahead_frames]
    reference = model.encode_reference(sample.face, sample.lips)
    context = model.encode_context(around, reference)
    tokens = model.encode_audio(audio, reference)[0, past : past + num_frames]
    said = (reference.token, reference.mouth, reference.lips, *reference.maps)
    emotion = [torch.zeros(1, dtype=torch.long)] if model.emotion else []
    turn = [torch.zeros(num_frames, 3)] if model.pose else []
    inputs = {
        "encode_reference": (sample.face, sample.lips, *emotion),
        "encode_context": (around, reference.masked_face, *turn),
        "encode_audio": (audio, reference.token),
        "decode": (tokens, *said, context.token, *context.maps),
    }
    # Exporters refuse tensors that were made in inference mode. ExecuTorch holds on to the order in
    # memory of what it is shown, and pictures come with their channels last.
    order = torch.contiguous_format
    return {p: tuple(t.clone(memory_format=order) for t in ts) for p, ts in inputs.items()}


@torch.inference_mode()
def generate_mouths(generator: GeneratorBackend, sample: Sample) -> Tensor:
    """The mouths [M, 3, H, W] of a sample: one frame alone, a still's, and a moving head's."""
    parts = (sample.face, sample.lips, sample.masked_face, sample.audio)
    face, lips, around, audio = (tensor.to(generator.device) for tensor in parts)
    past = generator.context_frames
    reference = generator.encode_reference(face, lips)
    tokens = generator.encode_audio(audio, reference)[0, past : past + len(around)]
    still, moving = (generator.encode_context(part, reference) for part in (around[:1], around))
    outputs = (
        generator.decode(tokens[:1], reference, still),
        generator.decode(tokens, reference, still),
        generator.decode(tokens, reference, moving),
    )
    return torch.cat([output.mouth for output in outputs]).cpu()


def compare(
    exported: GeneratorBackend, model: GeneratorBackend, sample: Sample
) -> tuple[float, float]:
    """How far the mouths of two generators are apart: the largest difference, and PSNR in dB."""
    error = (generate_mouths(exported, sample) - generate_mouths(model, sample)).double()
    psnr_db = -10 * torch.log10(error.square().mean().clamp_min(1e-20))
    return float(error.abs().max()), float(psnr_db)


def _check_arguments(output: Path, format: str, quantize: str) -> None:
    if format not in FORMATS:
        raise UsageError(f"format={format} is unknown: choose one of {', '.join(FORMATS)}")
    if quantize not in QUANTIZE:
        raise UsageError(f"quantize={quantize} is unknown: choose one of {', '.join(QUANTIZE)}")
    if quantize != "none" and format != "onnx":
        raise UsageError(f"quantize={quantize} goes with format=onnx alone, got format={format}")
    is_export = (output / METADATA).is_file()
    if output.exists() and not is_export and (output.is_file() or any(output.iterdir())):
        raise UsageError(f"output={output} holds something else: give a new folder")


def _check_quality(difference: float, psnr_db: float, quantize: str) -> None:
    if quantize == "none" and not difference <= TOLERANCE:
        raise CheckpointError(
            f"the exported model's pixels differ from torch's by up to {difference:.2g}, expected "
            f"at most {TOLERANCE}: try another format, or other versions of its packages"
        )
    if not psnr_db >= MIN_PSNR_DB:
        raise CheckpointError(
            f"the quantised model's mouths have a PSNR of {psnr_db:.1f} dB against torch's, "
            f"expected {MIN_PSNR_DB:.0f} or more: use quantize=none for this model"
        )


@contextmanager
def _whole_folder(output: Path) -> Iterator[Path]:
    """A folder beside the output that takes its place at the end, and is gone after an error."""
    temporary = output.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if output.exists():
            shutil.rmtree(output)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    (folder / METADATA).write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")


def writer_of(format: str) -> Writer:
    """What writes a call in a format: (call, what it is traced with, the file).

    Raises:
        DependencyError: a package that it needs is missing.
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
            f"format={format} needs a package that is not here ({error}): pip install {package}, "
            "or choose format=torchscript, which needs none"
        ) from error
    return _write_torchscript


def _write_onnx(call: Call, inputs: tuple[Tensor, ...], path: Path) -> None:
    for name in ("onnx_ir", "onnxscript"):  # They tell of each of their steps.
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


def _write_torchscript(call: Call, inputs: tuple[Tensor, ...], path: Path) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(call.eval(), inputs, check_trace=False)
    torch.jit.freeze(traced).save(str(path))  # Freezing drops the other calls' weights.


def max_windows(model: LipSyncGenerator) -> int:
    """The windows that the most frames need."""
    return model.context_frames + _MAX_LENGTH + model.lookahead_frames


def trace(
    call: Call, inputs: tuple[Tensor, ...], one_frame: bool = False
) -> torch.export.ExportedProgram:
    """The call's graph for one reference; the numbers of windows and, unless one, frames free."""
    frames = None if one_frame else {0: torch.export.Dim("frames", min=1, max=_MAX_LENGTH)}
    windows = {1: torch.export.Dim("windows", min=1, max=max_windows(call.model))}
    shapes = [
        frames if name.startswith(PER_FRAME) else windows if name == "audio" else None
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
    """Antialiased resizing [..., H, W] as two products: OpenVINO ignores `antialias`."""
    rows, columns = (_filters(*s) for s in zip(image.shape[-2:], size, strict=True))
    return rows @ image @ columns.T


def _filters(size: int, new_size: int) -> Tensor:
    """A triangle for each new pixel over the old ones: [new_size, size], rows of sum 1."""
    step = size / new_size
    centres = (torch.arange(new_size) + 0.5) * step
    distance = (torch.arange(size) + 0.5 - centres[:, None]).abs() / max(step, 1.0)
    triangle = (1 - distance).clamp_min(0)
    return triangle / triangle.sum(1, keepdim=True)
