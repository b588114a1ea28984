"""Training runs: the trainer, fitting, and the result."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from talkinghead.errors import CheckpointError, MediaError, UsageError
from talkinghead.media.atomic_file import remove_stale_files, temporary_name
from talkinghead.models.checkpoint import GENERATOR
from talkinghead.training.callbacks.last_checkpoint import LastCheckpoint
from talkinghead.training.callbacks.progress import IterationProgress
from talkinghead.training.experiment_tracking import track_checkpoint, track_config
from talkinghead.training.modules.lipsync_gan import LipSyncGANModule
from talkinghead.training.modules.sync_expert_module import SyncExpertModule
from talkinghead.training.resume import read_resumable
from talkinghead.training.run_metrics import load_metrics

logger = logging.getLogger(__name__)


def resolve_precision(precision: str) -> str:
    """Return the precision; for "auto", the fastest one that the device supports.

    This is bf16-mixed on GPUs that compute in bfloat16, 16-mixed on other GPUs, and 32 on CPUs.
    """
    if precision != "auto":
        return precision
    if not torch.cuda.is_available():
        return "32-true"
    # Older GPUs only emulate bfloat16, which is slow.
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has_bfloat16 else "16-mixed"


def train(
    module: L.LightningModule,
    datamodule: L.LightningDataModule,
    trainer: L.Trainer,
    ckpt_path: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train a module, and return the last value of every logged metric.

    If the checkpoint to resume from has reached `max_iterations`, nothing is trained, and the
    metrics are those that the run has written, or those of a validation. Training that starts from
    given weights (`init_from`) in one process begins with a validation of these weights, with which
    the result is compared.

    Args:
        module: A `LipSyncGANModule`, `SyncExpertModule` or `LipRegressorModule`.
        datamodule: The data module.
        trainer: The result of `build_trainer`.
        ckpt_path: Checkpoint to resume from, or None.
        config: Resolved configuration of the run, which is logged to W&B.

    Raises:
        CheckpointError: The checkpoint to resume from is truncated, or has another network or
            AVSpec.
        KeyboardInterrupt: The run was interrupted; the last checkpoint has been written.
    """
    _warn_without_sync_loss(module)
    if ckpt_path is not None and _has_finished(module, ckpt_path):
        return _metrics_of_finished(module, datamodule, trainer, ckpt_path)
    initial: float | None = None
    try:
        track_config(trainer, config or {})
        if ckpt_path is None:
            initial = _validate_initial_weights(module, datamodule, trainer)
        with _explained_loading(ckpt_path):
            trainer.fit(module, datamodule, ckpt_path=ckpt_path, weights_only=True)
        track_checkpoint(trainer)
    except SystemExit:
        # Lightning raises SystemExit after an interruption.
        if not trainer.interrupted:
            raise
    finally:
        _finish_wandb(trainer)
    _log_result(trainer, module)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if initial is not None:
        _compare_with_initial_weights(initial, trainer.callback_metrics.get("val/loss"))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _metrics_of_finished(
    module: L.LightningModule,
    datamodule: L.LightningDataModule,
    trainer: L.Trainer,
    ckpt_path: str | Path,
) -> dict[str, float]:
    """Return the metrics that a finished run has written, or else validate its checkpoint."""
    if metrics := load_metrics(Path(ckpt_path).absolute().parents[1]):
        return metrics
    handler = signal.getsignal(signal.SIGINT)
    try:
        with _explained_loading(ckpt_path):
            trainer.validate(module, datamodule, str(ckpt_path), verbose=False, weights_only=True)
    except SystemExit as error:
        if not trainer.interrupted:
            raise
        # Lightning ignores the signal afterwards.
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _finish_wandb(trainer: L.Trainer) -> None:
    """End the run of W&B, which would log all runs of a sweep as a single run otherwise."""
    if any(isinstance(one, WandbLogger) for one in trainer.loggers):
        import wandb

        wandb.finish()


def _has_finished(module: Any, ckpt_path: str | Path) -> bool:
    """Check the checkpoint to resume from; return whether no iteration is left to train."""
    kind = getattr(module, "kind", GENERATOR)
    iteration = read_resumable(ckpt_path, kind, module.arguments, module.spec)
    if iteration >= module.max_iterations:
        logger.info(
            "%s has reached iteration %d of %d, so nothing is left to train; for a longer run "
            "raise model.max_iterations",
            *(ckpt_path, iteration, module.max_iterations),
        )
        return True
    logger.info("resuming from %s after iteration %d", ckpt_path, iteration)
    return False


@contextmanager
def _explained_loading(ckpt_path: str | Path | None) -> Iterator[None]:
    """Replace torch's errors about a state dict, which list all keys, by one line."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        message = str(error)
        if ckpt_path is None or not re.search(r"loading state_dict|loaded state dict", message):
            raise
        raise CheckpointError(
            f"ckpt_path {ckpt_path} does not fit the networks or optimizers of this run "
            f"({message.splitlines()[0][:120]}): repeat the settings of its run"
        ) from error


def _warn_without_sync_loss(module: L.LightningModule) -> None:
    if getattr(module, "sync", True) is None:
        logger.warning(
            "no sync expert: the sync loss's weight is 0. Train one (experiment=sync_expert) and "
            "give model.sync_expert=PATH, or model.sync_discriminator=joint"
        )


def _validate_initial_weights(
    module: L.LightningModule, datamodule: L.LightningDataModule, trainer: L.Trainer
) -> float | None:
    """Validate the weights of `init_from`, and return val/loss; None if there are none."""
    options = getattr(module, "options", None)
    # Sharded networks can be configured only once, so several processes do not validate first.
    if getattr(options, "init_from", None) is None or trainer.world_size > 1:
        return None
    trainer.validate(module, datamodule, verbose=False)
    loss = trainer.callback_metrics.get("val/loss")
    return None if loss is None else float(loss)


def _compare_with_initial_weights(initial: float, final: torch.Tensor | None) -> None:
    if final is None:
        return
    logger.info("val/loss: %.4f before training, %.4f after", initial, final)
    if final >= initial:
        logger.warning(
            "training did not lower val/loss: keep the initial weights, or train with a lower "
            "optimizer.lr, fewer iterations (model.max_iterations) or more clips"
        )


def _log_result(trainer: L.Trainer, module: Any) -> None:
    """Log the path of the checkpoint, and the commands that use the checkpoint."""
    callbacks = [one for one in trainer.checkpoint_callbacks if isinstance(one, LastCheckpoint)]
    if not callbacks or not trainer.is_global_zero:
        return
    path = callbacks[0].path
    if trainer.interrupted:
        _log_interruption(callbacks[0], module)
        return
    logger.info(
        "finished after iteration %d of %d: %s is saved",
        *(module.iteration, module.max_iterations, path),
    )
    corpus = getattr(getattr(trainer, "datamodule", None), "corpus_dir", "CORPUS")
    checkpoint = shlex.quote(str(path))
    train_command = f"talkinghead train data.corpus_dir={corpus}"
    if isinstance(module, SyncExpertModule):
        logger.info("next: %s model.sync_expert=%s", train_command, checkpoint)
    elif isinstance(module, LipSyncGANModule):
        logger.info("next: talkinghead evaluate corpus=%s checkpoint=%s", corpus, checkpoint)
        command = "talkinghead predict face=FACE audio=AUDIO output=out.mp4"
        logger.info("next: %s checkpoint=%s", command, checkpoint)
    else:
        options = f"loss.weights.landmark=0.1 loss.landmark.checkpoint={checkpoint}"
        logger.info("next: %s %s", train_command, options)


def _log_interruption(callback: LastCheckpoint, module: Any) -> None:
    """Log which iteration the checkpoint of an interrupted run contains."""
    if not callback.path.is_file():
        logger.info("interrupted before a checkpoint was written")
        return
    if callback.saved_iteration is None:
        logger.info("interrupted: %s of the earlier run is unchanged", callback.path)
    else:
        logger.info(
            "interrupted after iteration %d of %d: %s is saved",
            *(callback.saved_iteration, module.max_iterations, callback.path),
        )
    logger.info("the same command with ckpt_path=last resumes")


class AtomicCheckpointIO(TorchCheckpointIO):
    """A checkpoint writer that keeps the previous file if writing fails.

    The checkpoint is written to a temporary file next to the target, flushed to the disk and
    renamed. Lightning's own writer uses the temporary directory, from which a file may have to be
    copied to another file system, which is not atomic.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        target = Path(path)
        temporary = target.with_name(f"{temporary_name()}{target.suffix}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_stale_files(target.parent)
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


def build_trainer(
    options: dict[str, Any], loggers: Sequence[Logger], callbacks: Sequence[Callback]
) -> L.Trainer:
    """Build a trainer with a progress bar of iterations and atomic checkpoints.

    The options are arguments of `lightning.Trainer`; `precision` may be "auto".

    Raises:
        UsageError: Lightning does not accept the options, or the strategy does not suit the number
            of processes.
    """
    options = {**options, "precision": resolve_precision(str(options.get("precision", "auto")))}
    for name in ("max_epochs", "max_steps"):  # Lightning fails when it uses other values.
        if not isinstance(value := options.get(name), int | None):
            raise UsageError(f"trainer.{name}={value}: expected a whole number")
    _silence_lightning()
    callbacks = list(callbacks)
    if options.get("enable_progress_bar", True):
        callbacks.append(IterationProgress())
    options.setdefault("enable_checkpointing", any(isinstance(c, Checkpoint) for c in callbacks))
    try:
        trainer = L.Trainer(
            **options,
            logger=list(loggers) or False,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UsageError(f"trainer: {error}") from error
    _require_processes(trainer, options)
    return trainer


def _require_processes(trainer: L.Trainer, options: Mapping[str, Any]) -> None:
    """Raise a `UsageError` if the strategy does not fit the number of processes."""
    distributed = options.get("strategy", "auto") != "auto"
    if trainer.world_size > 1 and not distributed:
        raise UsageError(
            f"trainer.devices={options.get('devices')} makes {trainer.world_size} processes: "
            "choose trainer=ddp, trainer=multinode or trainer=fsdp for them"
        )
    if trainer.world_size == 1 and distributed:
        raise UsageError(
            f"trainer=ddp, multinode and fsdp divide the work among several devices, but with "
            f"trainer.accelerator={options.get('accelerator')} and "
            f"trainer.devices={options.get('devices')} there is one: give more "
            "(trainer.devices=2), or trainer=default"
        )


def _silence_lightning() -> None:
    """Disable log lines and warnings of Lightning that are not relevant to the user."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        # Intended for the moving average and the frozen expert.
        ".*in eval mode at the start of training.*",
        ".*smaller than the logging interval.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        # All processes validate the same windows.
        ".*sync_dist=True.*",
        # Harmless here: no code modifies the outputs in place.
        ".*FSDP2-wrapped module .* returned a view.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        # `csv_logger` keeps the log of a resumed run.
        ".*Experiment logs directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message)
