"""Callback that keeps a recent checkpoint to resume from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from talkinghead.training.optim import require_finite_weights


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` at regular intervals, at the end of training and on an interruption.

    Lightning's own callback counts optimizer steps, of which manual optimization makes several per
    iteration, and has no interval in time. Weights that are not finite end the run and leave the
    file as it is.

    Args:
        dirpath: folder of the checkpoint.
        minutes: maximum age of the checkpoint.
    """

    def __init__(self, dirpath: str | Path, minutes: float = 5.0) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.interval_s = 60 * minutes
        self._saved_s = 0.0

    def on_train_start(self, *_: Any) -> None:
        self._saved_s = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        # Gradients that are still being accumulated would be missing from the checkpoint.
        stepped = pl_module.iteration % getattr(pl_module, "accumulate", 1) == 0
        due = stepped and time.monotonic() - self._saved_s >= self.interval_s
        # All processes must save together.
        if trainer.strategy.broadcast(due):
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        # After any other exception the weights may be damaged: the last file stays.
        if isinstance(exception, KeyboardInterrupt):
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        module: Any = trainer.lightning_module
        require_finite_weights(module, module.iteration)
        trainer.save_checkpoint(self.path)
        self._saved_s = time.monotonic()
