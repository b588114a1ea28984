"""What a run of a sweep tells the others, and when it gives up."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback

from talkinghead.errors import UsageError
from talkinghead.media.atomic_file import atomic_path

PROGRESS_NAME = "progress.json"

Direction = Literal["minimize", "maximize"]


class StopHopeless(Callback):
    """Stops a run whose best value so far is worse than the median of the finished runs.

    They are compared at the same iteration. Every run leaves its values in `progress.json` in its
    folder, where the others of the sweep, which lie beside it, find them. Runs that were stopped
    themselves do not count.

    Args:
        run_dir: this run's folder.
        metric: what is logged in validation.
        direction: "minimize" or "maximize" it.
        startup_runs: so many runs must have finished.
        warmup_iterations: nothing is stopped before.

    Raises:
        UsageError: `direction` is another, or (after the first validation) nothing of that name is
            logged.

    Paper: Golovin et al., "Google Vizier", 2017, for the median rule; this is Optuna's variant of
        it (`optuna.pruners.MedianPruner`), which its sweeper for Hydra cannot reach.
    """

    def __init__(
        self,
        run_dir: str,
        metric: str = "val/loss",
        direction: Direction = "minimize",
        startup_runs: int = 4,
        warmup_iterations: int = 0,
    ) -> None:
        require_direction(direction)
        self.run_dir, self.metric, self.direction = Path(run_dir), metric, direction
        self.startup_runs, self.warmup_iterations = startup_runs, warmup_iterations
        self.values: dict[int, float] = {}
        self.stopped = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        value = require_metric(trainer.callback_metrics, self.metric)
        iteration = int(pl_module.iteration)  # type: ignore[arg-type]
        self.values[iteration] = float(value)
        hopeless = iteration >= self.warmup_iterations and self._is_hopeless(iteration)
        # The folder may look different from another machine: one process decides.
        self.stopped = trainer.strategy.broadcast(hopeless)
        if self.stopped:
            trainer.should_stop = True
        self._write(trainer, "stopped" if self.stopped else "running")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.stopped:
            self._write(trainer, "running" if trainer.interrupted else "finished")

    def state_dict(self) -> dict[str, Any]:
        return {"values": {str(iteration): value for iteration, value in self.values.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = {int(iteration): v for iteration, v in state_dict["values"].items()}

    def _is_hopeless(self, iteration: int) -> bool:
        finished = [p["values"] for p in self._others() if p["state"] == "finished"]
        theirs = [values[str(iteration)] for values in finished if str(iteration) in values]
        if len(finished) < self.startup_runs or not theirs:
            return False
        known = [value for value in self.values.values() if not math.isnan(value)]
        if not known:
            return True
        median = statistics.median(theirs)
        return max(known) < median if self.direction == "maximize" else min(known) > median

    def _others(self) -> list[dict[str, Any]]:
        mine = (self.run_dir / PROGRESS_NAME).resolve()
        paths = mine.parent.parent.glob(f"*/{PROGRESS_NAME}")
        return [json.loads(path.read_text()) for path in paths if path != mine]

    def _write(self, trainer: L.Trainer, state: str) -> None:
        if trainer.is_global_zero:
            # The others may read it at any moment.
            with atomic_path(self.run_dir / PROGRESS_NAME) as temporary:
                temporary.write_text(json.dumps({"state": state, "values": self.values}))


def require_metric(metrics: Any, name: str) -> Any:
    """A metric of a run, by name.

    Raises:
        UsageError: it is not there.
    """
    if name not in metrics:
        there = ", ".join(sorted(name for name in metrics if name.startswith("val")))
        raise UsageError(
            f"objective.metric={name} is not measured; validation gives {there or 'nothing here'}"
        )
    return metrics[name]


def require_direction(direction: str) -> None:
    """Checks a direction.

    Raises:
        UsageError: it is neither minimize nor maximize.
    """
    if direction not in ("minimize", "maximize"):
        raise UsageError(f"objective.direction={direction}: choose minimize or maximize")
