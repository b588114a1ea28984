"""Logging to Weights & Biases (W&B) and to CSV files."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from talkinghead.media.atomic_file import atomic_path
from talkinghead.training.callbacks.last_checkpoint import LastCheckpoint

_GIT_TIMEOUT_S = 20


def csv_logger(save_dir: str) -> CSVLogger:
    """Return a logger that appends to `csv/metrics.csv` in the folder of a run.

    When a run is resumed, Lightning's own logger would delete the file.

    Args:
        save_dir: Folder of the run.
    """
    path = Path(save_dir) / "csv" / "metrics.csv"
    logger = CSVLogger(save_dir, name="csv", version="")
    if getattr(rank_zero_only, "rank", 0) != 0:
        return logger
    # If this process is killed before the rows are written again, the next one finds them here.
    kept = path.with_name("metrics.earlier.csv")
    if path.is_file() and path.stat().st_size and not kept.is_file():
        path.replace(kept)
    if kept.is_file():
        earlier = kept.read_text()
        with warnings.catch_warnings():
            # The first access creates the writer, which deletes the file, and says so.
            warnings.filterwarnings("ignore", "Experiment logs directory")
            writer = logger.experiment
        with atomic_path(path) as temporary:
            temporary.write_text(earlier)
        kept.unlink()
        writer.metrics_keys = earlier.splitlines()[0].split(",")
    return logger


def wandb_logger(
    save_dir: str,
    name: str | None = None,
    group: str | None = None,
    offline: bool | None = None,
    **options: Any,
) -> WandbLogger:
    """Return a W&B logger; an offline run can be uploaded later with `wandb sync`.

    Args:
        save_dir: Folder of the run.
        name: Name of the run; None for the name of the folder.
        group: Group of the run; None for the name of the parent folder, so that the runs of a sweep
            form a group.
        offline: Do not send anything over the network; None for true unless WANDB_API_KEY is set.
        **options: Arguments of `WandbLogger`.
    """
    folder = Path(save_dir).resolve()
    # W&B logs a warning if the folder is missing.
    folder.mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        save_dir=save_dir,
        name=folder.name if name is None else name,
        group=folder.parent.name if group is None else group,
        offline=not os.environ.get("WANDB_API_KEY") if offline is None else offline,
        **options,
    )


def track_config(trainer: L.Trainer, config: Mapping[str, Any]) -> None:
    """Log the resolved configuration of a run to W&B, with `git_state` under the key `git`."""
    for logger in _wandb_loggers(trainer):
        logger.log_hyperparams({**config, "git": git_state()})


def track_checkpoint(trainer: L.Trainer) -> None:
    """Log the best checkpoint, or the last one without validation, to W&B as an artifact."""
    callbacks = trainer.checkpoint_callbacks
    paths = [("best", c.best_model_path) for c in callbacks if isinstance(c, ModelCheckpoint)]
    paths += [("last", str(c.path)) for c in callbacks if isinstance(c, LastCheckpoint)]
    found = [(alias, path) for alias, path in paths if Path(path).is_file()]
    for logger in _wandb_loggers(trainer) if found else []:
        import wandb

        alias, path = found[0]
        artifact = wandb.Artifact(f"model-{logger.experiment.id}", "model")
        artifact.add_file(path, "model.ckpt")
        logger.experiment.log_artifact(artifact, aliases=[alias])


def git_state() -> dict[str, Any]:
    """Return the git commit of this code, and whether tracked files were changed.

    The result is empty if git is not installed or the code is not in a repository.
    """
    git = shutil.which("git")
    folder = str(Path(__file__).parent)

    def run(*arguments: str) -> str | None:
        command = [str(git), "-C", folder, *arguments]
        try:
            done = subprocess.run(  # noqa: S603
                command, capture_output=True, text=True, check=False, timeout=_GIT_TIMEOUT_S
            )
        except (OSError, subprocess.SubprocessError):  # Such as a repository on a lost share.
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = run("rev-parse", "HEAD") if git else None
    if commit is None:
        return {}
    return {"commit": commit, "dirty": bool(run("status", "--porcelain", "--untracked-files=no"))}


def _wandb_loggers(trainer: L.Trainer) -> list[WandbLogger]:
    loggers = [one for one in trainer.loggers if isinstance(one, WandbLogger)]
    return loggers if trainer.is_global_zero else []
