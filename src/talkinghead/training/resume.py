"""Resuming of runs. Imports nothing heavy: Hydra loads it before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from talkinghead.errors import CheckpointError

LAST = "checkpoints/last.ckpt"


class ResumeDirectory(Callback):
    """Hydra callback that makes `ckpt_path=last` continue in the folder of the newest run.

    The newest run is the one of the same `name` with the latest checkpoint. An explicit
    `hydra.run.dir` is kept.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set the run's folder before Hydra creates it."""
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
        ckpt_path: a path, "last" for the run's own last checkpoint, or None.
        run_dir: the run's folder.

    Raises:
        CheckpointError: there is no such checkpoint.
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
