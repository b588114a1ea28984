"""Callback that regularly writes a checkpoint from which a run can be resumed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from talkinghead.training.optim import require_finite_weights
from talkinghead.value_rules import NonNegativeFloat


class LastCheckpoint(Checkpoint):
    """A callback that writes `last.ckpt` regularly, at the end and after an interruption.

    Lightning's own callback counts optimizer steps, and manual optimization makes several of them
    in an iteration. If the weights are not finite, the run ends with an error and the file is not
    replaced.

    Args:
        dirpath: Folder of the checkpoint.
        minutes: Time in minutes between two checkpoints.
    """

    def __init__(self, dirpath: str | Path, minutes: NonNegativeFloat = 5.0) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.interval_s = 60 * minutes
        self._saved_s = 0.0

    def on_train_start(self, *_: Any) -> None:
        self._saved_s = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        # Do not save while gradients are being accumulated: a checkpoint does not contain them.
        stepped = pl_module.iteration % getattr(pl_module, "accumulate", 1) == 0
        due = stepped and time.monotonic() - self._saved_s >= self.interval_s
        # All processes must save together.
        if trainer.strategy.broadcast(due):
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        # After any other exception the weights may be invalid, so the previous file is kept.
        if isinstance(exception, KeyboardInterrupt):
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        module: Any = trainer.lightning_module
        require_finite_weights(module, module.iteration)
        trainer.save_checkpoint(self.path)
        self._saved_s = time.monotonic()
