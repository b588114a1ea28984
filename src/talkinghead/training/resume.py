"""Resuming of training runs.

This module imports no large packages, because Hydra imports it before every command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from talkinghead.errors import CheckpointError

LAST = "checkpoints/last.ckpt"


class ResumeDirectory(Callback):
    """A Hydra callback for `ckpt_path=last`, which selects the folder of the newest run.

    The newest run is the run of the same `name` with the newest checkpoint. If `hydra.run.dir` is
    given, it is not changed.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set the folder of the run before Hydra creates the folder."""
        given = [str(override) for override in config.hydra.overrides.hydra]
        if config.ckpt_path != "last" or any(o.startswith("hydra.run.dir=") for o in given):
            return
        runs = Path(config.hydra.run.dir).parent
        checkpoints = list(runs.glob(f"*/{LAST}"))
        if checkpoints:
            newest = max(checkpoints, key=lambda path: path.stat().st_mtime)
            with read_write(config):
                config.hydra.run.dir = str(newest.parents[1])


def resolve_resume(ckpt_path: str | Path | None, run_dir: Path) -> str | Path | None:
    """Return the checkpoint to resume from, or None.

    Args:
        ckpt_path: A path, "last" for the last checkpoint in `run_dir`, or None.
        run_dir: Folder of the run.

    Raises:
        CheckpointError: The checkpoint does not exist.
    """
    if ckpt_path is None:
        return None
    path = run_dir / LAST if ckpt_path == "last" else Path(ckpt_path)
    if path.is_file():
        return str(path)
    if ckpt_path == "last":
        raise CheckpointError(
            f"ckpt_path=last, but there is no {path} and no other run of this name next to it: "
            "train first, name the run (name=... or hydra.run.dir=...), or give a path"
        )
    raise CheckpointError(f"ckpt_path {path} does not exist: give a checkpoint's path, or last")
