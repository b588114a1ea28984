"""Pruning: early stopping of unpromising runs of a sweep, with a pruner of Optuna."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback

from talkinghead.errors import UsageError
from talkinghead.media.atomic_file import atomic_path
from talkinghead.value_rules import NonNegativeInt

logger = logging.getLogger(__name__)

PROGRESS_NAME = "progress.json"

Direction = Literal["minimize", "maximize"]


class SweepPruning(Callback):
    """A callback that stops unpromising runs of a sweep with a pruner of Optuna.

    Every run writes the values of its metric to `progress.json` in its folder. The folders of all
    runs of a sweep have the same parent folder, even if the runs are on several machines. Hydra's
    Optuna sweeper does not give the runs access to its study, and other sweepers have no study;
    therefore a study is built from these files. If Optuna is not installed, no run is stopped.

    Args:
        run_dir: Folder of this run.
        metric: Name of a validation metric.
        direction: "minimize" or "maximize" the metric.
        startup_runs: Number of runs that must be finished before a run can be stopped.
        warmup_iterations: Number of iterations of a run before that run can be stopped.
        pruner: An `optuna.pruners.BasePruner`; None for `MedianPruner`, which compares the best
            value of a run with the median of the finished runs at the same iteration.

    Raises:
        UsageError: `direction` is unknown, or (after the first validation) the metric is not
            logged.
    """

    def __init__(
        self,
        run_dir: str | Path,
        metric: str = "val/loss",
        direction: Direction = "minimize",
        startup_runs: NonNegativeInt = 4,
        warmup_iterations: NonNegativeInt = 0,
        pruner: Any = None,
    ) -> None:
        if direction not in ("minimize", "maximize"):
            raise UsageError(f"objective.direction={direction}: choose minimize or maximize")
        self.run_dir, self.metric, self.direction = Path(run_dir), metric, direction
        self.values: dict[int, float] = {}
        self.stopped = False
        self.pruner = pruner
        if find_spec("optuna") is None:
            logger.info(
                "optuna is not installed, so no run of the sweep is stopped early: "
                "pip install 'talkinghead[sweep]'"
            )
        elif pruner is None:
            from optuna.pruners import MedianPruner

            self.pruner = MedianPruner(startup_runs, warmup_iterations)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        value = require_metric(trainer.callback_metrics, self.metric)
        self.values[int(pl_module.iteration)] = float(value)  # type: ignore[arg-type]
        # One process decides, because another machine may see the files of other runs later.
        self.stopped = trainer.strategy.broadcast(trainer.is_global_zero and self._should_prune())
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

    def _should_prune(self) -> bool:
        if self.pruner is None:
            return False
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # create_trial is marked experimental in Optuna 2.
            study = optuna.create_study(direction=self.direction, pruner=self.pruner)
            for values in self._finished_runs():
                value = values[max(values)]
                study.add_trial(optuna.trial.create_trial(value=value, intermediate_values=values))
            trial = study.ask()
            for iteration, value in self.values.items():
                trial.report(value, iteration)
            return bool(trial.should_prune())

    def _finished_runs(self) -> Iterator[dict[int, float]]:
        """Yield the values by iteration of each of the other finished runs of the sweep."""
        folder = self.run_dir.resolve()
        for path in folder.parent.glob(f"*/{PROGRESS_NAME}"):
            run = json.loads(path.read_text())
            values = {int(iteration): value for iteration, value in run["values"].items()}
            finished = run["state"] == "finished" and path.parent != folder and values
            if finished and not math.isnan(values[max(values)]):
                yield values

    def _write(self, trainer: L.Trainer, state: str) -> None:
        if trainer.is_global_zero:
            # Other runs may read the file at any time.
            with atomic_path(self.run_dir / PROGRESS_NAME) as temporary:
                temporary.write_text(json.dumps({"state": state, "values": self.values}))


def require_metric(metrics: Any, name: str) -> Any:
    """Return a metric of a run; raise a `UsageError` if the metric was not logged."""
    if name not in metrics:
        known = ", ".join(sorted(name for name in metrics if name.startswith("val")))
        raise UsageError(
            f"objective.metric={name} is not measured; validation gives {known or 'nothing'}"
        )
    return metrics[name]
