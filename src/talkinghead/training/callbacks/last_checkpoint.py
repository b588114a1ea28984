"""Callback that regularly writes a checkpoint from which a run can be resumed."""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from talkinghead.concurrency import TERMINATION_SIGNALS
from talkinghead.training.optim import require_finite_weights
from talkinghead.value_rules import NonNegativeFloat

logger = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """A callback that writes `last.ckpt` regularly, at the end and after an interruption.

    Ctrl-C, SIGTERM and SIGHUP end the run after the current optimizer step, so that weights,
    optimizers and data position belong to the same iteration. A second signal ends the run at once;
    in the middle of a step the previous file is then kept.

    Lightning's own callback counts optimizer steps, and manual optimization makes several of them
    in an iteration. If the weights are not finite, the run ends with an error and the file is not
    replaced.

    Args:
        dirpath: Folder of the checkpoint.
        minutes: Time in minutes between two checkpoints.

    Attributes:
        saved_iteration: Iteration of the file; None if this run has not written it.
    """

    def __init__(self, dirpath: str | Path, minutes: NonNegativeFloat = 5.0) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.interval_s = 60 * minutes
        self.saved_iteration: int | None = None
        self._saved_s = 0.0
        # Between optimizer steps of a run whose state has been restored.
        self._between_steps = False
        self._handlers: dict[int, Any] = {}
        self._received: int | None = None

    def setup(self, *_: Any, **__: Any) -> None:
        # Lightning replaces the handlers later, and with its handler of SIGTERM a run would end
        # without a checkpoint.
        numbers = (signal.SIGINT, *TERMINATION_SIGNALS)
        self._handlers = {number: signal.getsignal(number) for number in numbers}

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._saved_s = time.monotonic()
        self._between_steps, self._received = True, None
        if threading.current_thread() is not threading.main_thread():
            return

        def handle(number: int, frame: FrameType | None) -> None:
            in_validation = self._between_steps and not trainer.training
            if self._received is not None or in_validation:
                self._interrupt(number, frame)
            self._received = number
            logger.info("ending the run after this iteration; a second signal ends it at once")

        # Lightning restores the previous handlers when the run ends. Ignored signals stay ignored.
        for number, handler in self._handlers.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, handle)

    def on_train_batch_start(self, *_: Any) -> None:
        self._between_steps = False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        # Do not save while gradients are being accumulated: a checkpoint does not contain them.
        stepped = pl_module.iteration % getattr(pl_module, "accumulate", 1) == 0
        self._between_steps = stepped
        interrupted = stepped and self._received is not None
        due = stepped and time.monotonic() - self._saved_s >= self.interval_s
        # All processes must save together.
        if trainer.strategy.reduce_boolean_decision(due or interrupted, all=False):
            self._save(trainer)
            if trainer.strategy.reduce_boolean_decision(interrupted, all=False):
                self._interrupt(self._received, None)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        # After any other exception the weights may be invalid, so the previous file is kept.
        if not isinstance(exception, KeyboardInterrupt) or not self._between_steps:
            return
        # The data module counts a batch before its step begins.
        position = getattr(trainer.datamodule, "iteration", pl_module.iteration)  # type: ignore[attr-defined]
        if self.saved_iteration != pl_module.iteration == position:
            self._save(trainer)

    def _interrupt(self, number: int | None, frame: FrameType | None) -> None:
        """Call the handler of a signal that the command has installed, or end the run."""
        handler = None if number is None else self._handlers[number]
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt

    def _save(self, trainer: L.Trainer) -> None:
        module: Any = trainer.lightning_module
        require_finite_weights(module, module.iteration)
        trainer.save_checkpoint(self.path)
        self._saved_s, self.saved_iteration = time.monotonic(), module.iteration
