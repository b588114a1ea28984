"""Progress display of a training run, counted in iterations of the LightningModule."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from talkinghead.progress_bar import stderr_console

logger = logging.getLogger(__name__)

_LINE_INTERVAL_S = 60.0


class IterationProgress(ProgressBar):
    """A progress bar in a terminal; otherwise a log line every minute.

    It counts iterations up to `max_iterations`; Lightning's own bars count the batches of an epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
        self._enabled = True
        self._logged_s = self._started_s = 0.0
        self._first = 0

    def disable(self) -> None:
        """Disable the display; Lightning calls this in all processes except the first."""
        self._enabled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._started_s = self._logged_s = time.monotonic()
        self._first = pl_module.iteration
        if self._enabled and stderr_console().is_terminal:
            text = TextColumn("{task.description}")
            columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text
            self._bar = Progress(*columns, console=stderr_console())
            self._bar.start()
            self._bar.add_task("", total=pl_module.max_iterations, completed=self._first)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if not self._enabled:
            return
        iteration, total, now_s = pl_module.iteration, pl_module.max_iterations, time.monotonic()
        if self._bar is not None:
            figures = self._figures(trainer, pl_module)
            self._bar.update(self._bar.task_ids[0], completed=iteration, description=figures)
        elif now_s - self._logged_s >= _LINE_INTERVAL_S or iteration >= total:
            self._logged_s = now_s
            per_s = (iteration - self._first) / max(now_s - self._started_s, 1e-9)
            left_min = (total - iteration) / max(per_s, 1e-9) / 60
            figures = self._figures(trainer, pl_module)
            message = "iteration %d of %d, about %.0f min left: %s"
            logger.info(message, iteration, total, left_min, figures)

    def on_exception(self, *_: Any) -> None:
        self.on_train_end()

    def on_train_end(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _figures(self, trainer: L.Trainer, module: L.LightningModule) -> str:
        metrics = self.get_metrics(trainer, module)
        return ", ".join(
            f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float)
        )
