"""An exported model for the live server, made in the background when the server first runs."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from talkinghead.errors import TalkingHeadError
from talkinghead.models.checkpoint import resolve_checkpoint
from talkinghead.paths import as_path
from talkinghead.runtime.device import resolve_device
from talkinghead.runtime.exported_generator import METADATA
from talkinghead.runtime.loading import cached_export, cached_export_folder

log = logging.getLogger(__name__)

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_PRIORITY = 19  # The lowest.


def live_backend(checkpoint: str | Path, backend: str, device: str, precision: str) -> str:
    """Return "onnx" in place of "auto" if the checkpoint's export is in the user's cache.

    ONNX Runtime decodes a mouth in one call, without Python's interpreter lock, which the threads
    of a live session share. In full precision on a CPU its images equal those of PyTorch.
    """
    if _may_use_export(checkpoint, backend, device, precision) and _is_exported(checkpoint):
        return "onnx"
    return backend


@contextmanager
def exporting_model(
    checkpoint: str | Path, backend: str, device: str, precision: str
) -> Iterator[None]:
    """Export a checkpoint for `live_backend` in a process of low priority, unless it was before.

    The process ends with the context. If the export fails, the next context tries it again.
    """
    process = None
    if _may_use_export(checkpoint, backend, device, precision) and not _is_exported(checkpoint):
        log.info(
            "exporting the model for ONNX Runtime in the background, once: sessions that start in "
            "some minutes take less processor time"
        )
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_export, args=(checkpoint,), daemon=True)
        process.start()
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.join()


def _may_use_export(checkpoint: str | Path, backend: str, device: str, precision: str) -> bool:
    if backend != "auto" or precision not in ("auto", "32"):
        return False
    if str(checkpoint) != "default" and as_path(checkpoint, "checkpoint").is_dir():
        return False  # It is an export.
    return resolve_device(device).type == "cpu" and all(map(find_spec, _PACKAGES))


def _is_exported(checkpoint: str | Path) -> bool:
    return (cached_export_folder(resolve_checkpoint(checkpoint)) / METADATA).is_file()


def _export(checkpoint: str | Path) -> None:
    import torch

    if hasattr(os, "nice"):
        os.nice(_PRIORITY)
    torch.set_num_threads(1)
    # PyTorch prints its progress.
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - open until the end
    with suppress(TalkingHeadError, OSError):  # Sessions use PyTorch, and report their own errors.
        cached_export(resolve_checkpoint(checkpoint))
