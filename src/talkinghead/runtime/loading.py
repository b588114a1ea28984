"""From what a user names (a checkpoint, a backend, a device) to a generator that runs."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
from pathlib import Path
from typing import cast

import torch

import talkinghead
from talkinghead import models
from talkinghead.errors import UsageError
from talkinghead.models.checkpoint import load_generator, resolve_checkpoint
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.mouth_generator import resolve_device, resolve_precision
from talkinghead.runtime.backend import (
    EXPORT_VERSION,
    METADATA,
    RUNTIMES,
    ExportedGenerator,
    GeneratorBackend,
    read_metadata,
)
from talkinghead.types import AVSpec

log = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "onnx", "openvino")


def load_backend(checkpoint: str | Path, backend: str = "auto") -> tuple[GeneratorBackend, AVSpec]:
    """A generator on the CPU and the AVSpec it was trained for.

    Args:
        checkpoint: a `.ckpt` or `.safetensors` file, "default", or a folder that `talkinghead
            export` wrote.
        backend: "torch"; "onnx" or "openvino", for which a checkpoint is exported once and kept in
            the user's cache; "auto" is torch, or what reads the folder.

    Raises:
        CheckpointError: the file or the folder cannot be used.
        DependencyError: the backend's package is missing.
        UsageError: the backend is unknown, or does not read the folder's format.
    """
    if backend not in BACKENDS:
        raise UsageError(f"backend={backend} is unknown: choose one of {', '.join(BACKENDS)}")
    if str(checkpoint) != "default" and Path(checkpoint).is_dir():
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
    """A generator where it is to run, and its autocast type (None is full precision).

    Raises:
        UsageError: the device or the precision is unknown, or not to be had with this generator.
    """
    if isinstance(generator, LipSyncGenerator):
        where = resolve_device(device)
        return generator.to(where).eval(), resolve_precision(precision, where)
    if device not in ("auto", "cpu") or precision not in ("auto", "32"):
        raise UsageError(
            f"device={device} precision={precision}: an exported generator runs on the CPU in full "
            "precision; choose device=cpu precision=32, or backend=torch"
        )
    return generator, None


def cached_export(checkpoint: Path) -> Path:
    """The folder in the user's cache with a checkpoint as ONNX files, which are made once.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DependencyError: a package that the export needs is missing.
    """
    folder = cached_export_folder(checkpoint)
    if (folder / METADATA).is_file():
        return folder
    from talkinghead.runtime.export.exporter import export_generator

    log.info("exporting %s to %s, once: this takes a while", checkpoint, folder)
    own = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    export_generator(checkpoint, own, "onnx")
    try:
        own.rename(folder)
    except OSError:  # Another process was as quick; its files are the same.
        shutil.rmtree(own)
    return folder


def cached_export_folder(checkpoint: Path) -> Path:
    """Named after the checkpoint's content, the code of the model and the versions."""
    versions = (talkinghead.__version__, EXPORT_VERSION, torch.__version__)
    digest = hashlib.sha256(repr(versions).encode())
    for path in (checkpoint, *sorted(Path(models.__path__[0]).glob("*.py"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "talkinghead" / "exports" / digest.hexdigest()[:20]
