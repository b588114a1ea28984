"""Export a checkpoint to files for other runtimes: one file per call of the generator.

The folder also contains the lip head and `talkinghead.json`, which describes the export.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

from talkinghead.errors import UsageError
from talkinghead.media.atomic_file import atomic_folder
from talkinghead.models.checkpoint import load_generator
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.progress_bar import stderr_console
from talkinghead.runtime.export.file_formats import CallWriter, call_writer, max_windows
from talkinghead.runtime.export.generator_calls import GeneratorCall, example_inputs
from talkinghead.runtime.export.verification import check_quality, compare, demo_sample
from talkinghead.runtime.exported_generator import (
    EXPORT_VERSION,
    LIP_HEAD,
    METADATA,
    PARTS,
    RUNTIMES,
    SUFFIXES,
    ExportedGenerator,
    read_metadata,
)

QUANTIZE = ("none", "int8")


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes:
        path: folder of the export.
        num_bytes: total size of the files in the folder.
        max_difference: largest difference of a mouth pixel in [0, 1] from torch.
        psnr_db: PSNR of the mouths against torch.
    """

    path: Path
    num_bytes: int
    max_difference: float
    psnr_db: float


def export_generator(
    checkpoint: str | Path, output: str | Path, format: str = "onnx", quantize: str = "none"
) -> ExportReport:
    """Export the calls of a generator and their metadata to a folder.

    Args:
        checkpoint: A `.ckpt` or `.safetensors` file, or "default" for the packaged weights.
        output: Folder to write. An earlier export is replaced only if the new export succeeds.
        format: "onnx" (for ONNX Runtime and OpenVINO), "torchscript" or "executorch".
        quantize: "none", or "int8" (ONNX only) for smaller files of lower quality.

    Raises:
        CheckpointError: the checkpoint cannot be read, or the exported mouths differ from torch's.
        DependencyError: a package that the format needs is missing.
        MediaError: the folder cannot be written.
        UsageError: the format or the quantisation is unknown, or the folder has other contents.
    """
    output = Path(output)
    _check_arguments(output, format, quantize)
    write = call_writer(format)
    loaded = load_generator(checkpoint)
    model = cast(LipSyncGenerator, loaded.model).requires_grad_(False)
    sample = demo_sample(loaded.spec, model)
    with atomic_folder(output) as folder:
        metadata = {
            "export_version": EXPORT_VERSION,
            "format": format,
            "quantize": quantize,
            **_write_calls(model, example_inputs(model, sample, 3), format, write, folder),
            **{key: loaded.meta.get(key) for key in ("av", "license", "trained_on", "generator")},
        }
        _write_metadata(folder, metadata)
        if quantize == "int8":
            quantise_onnx(folder, example_inputs(model, sample, len(sample.masked_face)))
        difference, psnr_db = compare(ExportedGenerator(folder, RUNTIMES[format]), model, sample)
        check_quality(difference, psnr_db, quantize)
        _write_metadata(folder, {**metadata, "max_difference": difference, "psnr_db": psnr_db})
    num_bytes = sum(path.stat().st_size for path in output.iterdir())
    return ExportReport(output, num_bytes, difference, psnr_db)


def _write_calls(
    model: LipSyncGenerator,
    inputs: Mapping[str, tuple[Tensor, ...]],
    format: str,
    write: CallWriter,
    folder: Path,
) -> dict[str, Any]:
    """Write the calls and the lip head, and return the metadata of the calls."""
    calls = {part: GeneratorCall(model, part) for part in PARTS}
    steps = list(calls.items())
    for part, call in track(steps, "exporting", console=stderr_console(), transient=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The exporters use deprecated functions.
            write(call, inputs[part], folder / f"{part}{SUFFIXES[format]}")
    save_file({"weight": model.lip_head.weight, "bias": model.lip_head.bias}, folder / LIP_HEAD)
    limits = {"max_frames": 1, "max_windows": max_windows(model)}
    return {
        "context_frames": model.context_frames,
        "lookahead_frames": model.lookahead_frames,
        "input_features": model.input_features,
        "needs_head_pose": model.needs_head_pose,
        "emotions": model.emotion.names if model.emotion else [],
        **(limits if format == "executorch" else {}),
        "parts": {p: {"inputs": c.inputs, "outputs": c.outputs} for p, c in calls.items()},
    }


def _check_arguments(output: Path, format: str, quantize: str) -> None:
    if format not in SUFFIXES:
        raise UsageError(f"format={format} is unknown: choose one of {', '.join(SUFFIXES)}")
    if quantize not in QUANTIZE:
        raise UsageError(f"quantize={quantize} is unknown: choose one of {', '.join(QUANTIZE)}")
    if quantize != "none" and format != "onnx":
        raise UsageError(f"quantize={quantize} needs format=onnx, got format={format}")
    is_export = (output / METADATA).is_file()
    if output.exists() and not is_export and (output.is_file() or any(output.iterdir())):
        raise UsageError(f"output={output} has other contents: give a new folder")


def _write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    (folder / METADATA).write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")


def quantise_onnx(folder: Path, inputs: Mapping[str, tuple[Tensor, ...]]) -> None:
    """Replace the files of an ONNX export with quantised int8 files.

    Convolutions are quantised statically: the inputs calibrate the range of their activations. The
    matrix products of the transformer are quantised dynamically, because the range of speech
    varies. The decoder's head stays in full precision: quantisation steps would be visible in its
    output. The inputs of each part are results of `example_inputs`.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    parts = read_metadata(folder)["parts"]
    shared: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QInt8}
    for part in PARTS:
        path, small = folder / f"{part}.onnx", folder / f"{part}.int8.onnx"
        with _warnings_disabled():  # They ask for preprocessing done by torch.
            if part == "encode_audio":
                quantize_dynamic(path, small, op_types_to_quantize=["MatMul"], **shared)
            else:
                arrays = (tensor.numpy() for tensor in inputs[part])
                named = dict(zip(parts[part]["inputs"], arrays, strict=True))
                nodes = onnx.load(path).graph.node
                quantize_static(
                    path,
                    small,
                    SimpleNamespace(get_next=partial(next, iter([named]), None)),
                    op_types_to_quantize=["Conv", "Gemm"],
                    nodes_to_exclude=[
                        node.name for node in nodes if any("decoder.head." in i for i in node.input)
                    ],
                    # x86 instructions multiply unsigned activations by signed weights.
                    activation_type=QuantType.QUInt8,
                    **shared,
                )
        small.replace(path)


@contextmanager
def _warnings_disabled() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
