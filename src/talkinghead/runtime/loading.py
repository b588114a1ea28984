"""Load a generator from a checkpoint or an export, for a backend and a device."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import cast

import torch

import talkinghead
from talkinghead import models
from talkinghead.errors import UsageError
from talkinghead.media.atomic_file import remove_stale_files, temporary_name
from talkinghead.models.checkpoint import load_generator, resolve_checkpoint
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.paths import as_path, cache_dir
from talkinghead.runtime.device import resolve_device, resolve_precision
from talkinghead.runtime.exported_generator import (
    EXPORT_VERSION,
    METADATA,
    RUNTIMES,
    ExportedGenerator,
    read_metadata,
)
from talkinghead.runtime.generator_backend import GeneratorBackend
from talkinghead.types import AVSpec

log = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "onnx", "openvino")


def load_backend(checkpoint: str | Path, backend: str = "auto") -> tuple[GeneratorBackend, AVSpec]:
    """Load a generator on the CPU, and return it with the AVSpec used in training.

    Args:
        checkpoint: a `.ckpt` or `.safetensors` file, "default", or a folder that `talkinghead
            export` wrote.
        backend: "torch"; "onnx" or "openvino", for which a checkpoint is exported once and kept in
            the user's cache; "auto" selects torch for a file, and for a folder the runtime of its
            format.

    Raises:
        CheckpointError: the file or the folder cannot be used.
        DependencyError: the backend's package is missing.
        UsageError: the backend is unknown, or does not read the folder's format.
    """
    if backend not in BACKENDS:
        raise UsageError(f"backend={backend} is unknown: choose one of {', '.join(BACKENDS)}")
    if str(checkpoint) != "default" and as_path(checkpoint, "checkpoint").is_dir():
        runtime = RUNTIMES[read_metadata(Path(checkpoint))["format"]]
        exported = ExportedGenerator(checkpoint, runtime if backend == "auto" else backend)
        return exported, exported.spec
    if backend in ("auto", "torch"):
        loaded = load_generator(checkpoint)
        return cast(LipSyncGenerator, loaded.model), loaded.spec
    exported = ExportedGenerator(cached_export(resolve_checkpoint(checkpoint)), backend)
    return exported, exported.spec


def place(
    generator: GeneratorBackend, device: str, precision: str
) -> tuple[GeneratorBackend, torch.dtype | None]:
    """Move a generator to a device; return the generator and the autocast dtype, if any.

    Raises:
        UsageError: the device or the precision is unknown, or the generator does not support it.
    """
    if isinstance(generator, LipSyncGenerator):
        resolved = resolve_device(device)
        return generator.to(resolved).eval(), resolve_precision(precision, resolved)
    if device not in ("auto", "cpu") or precision not in ("auto", "32"):
        raise UsageError(
            f"device={device} precision={precision}: an exported generator runs on the CPU in full "
            "precision; choose device=cpu precision=32, or backend=torch"
        )
    return generator, None


def cached_export(checkpoint: Path) -> Path:
    """Return the folder of a checkpoint's ONNX export in the user's cache; export on first use."""
    folder = cached_export_folder(checkpoint)
    if (folder / METADATA).is_file():
        return folder
    from talkinghead.runtime.export.exporter import export_generator

    log.info("exporting %s to %s, once: this takes a while", checkpoint, folder)
    remove_stale_files(folder.parent)
    temporary = folder.with_name(temporary_name())
    export_generator(checkpoint, temporary, "onnx")
    try:
        temporary.rename(folder)
    except OSError:  # Another process has already finished the same export.
        shutil.rmtree(temporary)
    return folder


def cached_export_folder(checkpoint: Path) -> Path:
    """Return the cache folder for the export of a checkpoint.

    The folder name is a digest of the checkpoint's content, the source code of the models, and the
    versions of talkinghead, torch and the exported files.
    """
    versions = (talkinghead.__version__, EXPORT_VERSION, torch.__version__)
    digest = hashlib.sha256(repr(versions).encode())
    for path in (checkpoint, *sorted(Path(models.__path__[0]).rglob("*.py"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return exports_folder() / digest.hexdigest()[:20]


def exports_folder() -> Path:
    """Return the folder of all exports in the user's cache."""
    return cache_dir() / "exports"
