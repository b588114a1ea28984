"""A run in Weights & Biases: its place, its configuration, the code's state and its checkpoint."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from talkinghead.training.callbacks.previews import LastCheckpoint


def wandb_logger(
    save_dir: str,
    name: str | None = None,
    group: str | None = None,
    offline: bool | None = None,
    **options: Any,
) -> WandbLogger:
    """W&B, offline when there is no key: `wandb sync` uploads such a run later.

    Args:
        save_dir: the run's folder.
        name: of the run; the folder's by default.
        group: of the run; by default what its folder lies in, so a sweep's runs are a group.
        offline: None decides by WANDB_API_KEY.
        **options: of `WandbLogger`.
    """
    folder = Path(save_dir).resolve()
    # W&B would make the folder only when it is first written to, and warn that it is missing.
    folder.mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        save_dir=save_dir,
        name=folder.name if name is None else name,
        group=folder.parent.name if group is None else group,
        offline=not os.environ.get("WANDB_API_KEY") if offline is None else offline,
        **options,
    )


def track_config(trainer: L.Trainer, config: Mapping[str, Any]) -> None:
    """Gives W&B a run's resolved configuration, and as `git` the state of the code."""
    for logger in _wandb_loggers(trainer):
        logger.log_hyperparams({**config, "git": git_state()})


def track_checkpoint(trainer: L.Trainer) -> None:
    """Gives W&B the best checkpoint, or the last where nothing was validated, as an artifact."""
    best = [
        c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)
    ]
    last = [str(c.path) for c in trainer.checkpoint_callbacks if isinstance(c, LastCheckpoint)]
    paths = {"best": best, "last": last}
    found = [(alias, path) for alias in paths for path in paths[alias] if Path(path).is_file()]
    for logger in _wandb_loggers(trainer) if found else []:
        import wandb

        alias, path = found[0]
        artifact = wandb.Artifact(f"model-{logger.experiment.id}", "model")
        artifact.add_file(path, "model.ckpt")
        logger.experiment.log_artifact(artifact, aliases=[alias])


def git_state() -> dict[str, Any]:
    """The commit of the repository that this code lies in, and whether files were changed since.

    Empty where there is no git or no repository.
    """
    git = shutil.which("git")
    folder = str(Path(__file__).parent)

    def ask(*arguments: str) -> str | None:
        command = [str(git), "-C", folder, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD") if git else None
    if commit is None:
        return {}
    return {"commit": commit, "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}


def _wandb_loggers(trainer: L.Trainer) -> list[WandbLogger]:
    loggers = [one for one in trainer.loggers if isinstance(one, WandbLogger)]
    return loggers if trainer.is_global_zero else []
