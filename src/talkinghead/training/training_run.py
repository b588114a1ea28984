"""One training run: put together, resumed where it stopped, and left whole."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger, WandbLogger

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.training.experiment_tracking import track_checkpoint, track_config

logger = logging.getLogger(__name__)

LAST = "checkpoints/last.ckpt"


def resolve_precision(precision: str) -> str:
    """Turns "auto" into bf16-mixed where the GPU has it, 16-mixed on other GPUs, 32 on CPUs."""
    if precision != "auto":
        return precision
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"


def resolve_resume(ckpt_path: str | None, run_dir: Path) -> str | None:
    """The checkpoint to go on from: a path, or "last" for the newest run beside this one.

    Raises:
        CheckpointError: there is none.
    """
    if ckpt_path is None:
        return None
    if ckpt_path != "last":
        if not Path(ckpt_path).is_file():
            raise CheckpointError(
                f"ckpt_path {ckpt_path} does not exist: give a checkpoint's path, or last"
            )
        return ckpt_path
    found = [*run_dir.glob(LAST), *run_dir.parent.glob(f"*/{LAST}")]
    if not found:
        raise CheckpointError(
            f"ckpt_path=last, but no run under {run_dir.parent} has left a {LAST}: train first, or "
            "give a path"
        )
    return str(max(found, key=lambda path: path.stat().st_mtime))


def train(
    module: L.LightningModule,
    datamodule: L.LightningDataModule,
    trainer: L.Trainer,
    ckpt_path: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Fits, and returns the last value of everything that was logged.

    Args:
        module: a `LipSyncGANModule` or a `SyncExpertModule`.
        datamodule: its data.
        trainer: Lightning's, complete.
        ckpt_path: where to go on from.
        config: the run's resolved configuration, for W&B.
    """
    if getattr(module, "sync", True) is None:
        logger.warning(
            "no sync expert: the sync loss's weight is 0. Train one (experiment=sync_expert) and "
            "give model.sync_expert=PATH, or model.sync_discriminator=joint"
        )
    try:
        track_config(trainer, config or {})
        trainer.fit(module, datamodule, ckpt_path=ckpt_path, weights_only=True)
        interrupted = trainer.interrupted
        track_checkpoint(trainer)
    finally:
        # Or a multirun's runs would go on in the first one's.
        if any(isinstance(one, WandbLogger) for one in trainer.loggers):
            import wandb

            wandb.finish()
    if interrupted:
        raise KeyboardInterrupt
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def build_trainer(
    options: dict[str, Any], loggers: Sequence[Logger], callbacks: Sequence[Callback]
) -> L.Trainer:
    """Lightning's Trainer with what our modules need.

    Their own sampler, and checkpoints written whole.

    Raises:
        UsageError: Lightning refuses the options, or several processes and the strategy do not go
            together.
    """
    from talkinghead.training.checkpoint_io import AtomicCheckpointIO

    options = {**options, "precision": resolve_precision(str(options.get("precision", "auto")))}
    _quieten_lightning()
    options.setdefault("enable_checkpointing", any(isinstance(c, Checkpoint) for c in callbacks))
    try:
        trainer = L.Trainer(
            **options,
            logger=list(loggers) or False,
            callbacks=list(callbacks),
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UsageError(f"trainer: {error}") from error
    _require_processes(trainer, options)
    return trainer


def _require_processes(trainer: L.Trainer, options: Mapping[str, Any]) -> None:
    """Several processes need a strategy that knows of our optimizers, and such a strategy them."""
    wants_many = options.get("strategy", "auto") != "auto"
    if trainer.world_size > 1 and not wants_many:
        raise UsageError(
            f"trainer.devices={options.get('devices')} makes {trainer.world_size} processes: "
            "choose trainer=ddp, trainer=multinode or trainer=fsdp for them"
        )
    if trainer.world_size == 1 and wants_many:
        raise UsageError(
            f"trainer=ddp, multinode and fsdp divide the work among several devices, but with "
            f"trainer.accelerator={options.get('accelerator')} and "
            f"trainer.devices={options.get('devices')} there is one: give more "
            "(trainer.devices=2), or trainer=default"
        )


def _quieten_lightning() -> None:
    """Drops what Lightning says of itself: a run's own lines are what a user looks for."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*in eval mode at the start of training.*",  # The moving average and the frozen expert.
        ".*smaller than the logging interval.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*sync_dist=True.*",  # Every process validates the same windows.
        ".*FSDP2-wrapped module .* returned a view.*",  # Nobody changes outputs in place.
        ".*Checkpoint directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message)
