"""Atomic writing of checkpoints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from talkinghead.errors import MediaError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file next to the target, flushes it to the disk and renames it.

    A full disk or a killed process leaves the previous file intact. Lightning's own writer stages
    in the temporary directory, from which a move to another file system is a copy.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except (OSError, RuntimeError) as error:
            raise MediaError(
                f"checkpoint {target} could not be written ({error}): free some space and resume "
                "with ckpt_path=last"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
