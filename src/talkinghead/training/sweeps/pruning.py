"""Early stopping of unpromising runs of a sweep, with Optuna's pruners."""

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

logger = logging.getLogger(__name__)

PROGRESS_NAME = "progress.json"

Direction = Literal["minimize", "maximize"]


class SweepPruning(Callback):
    """Stops unpromising runs of a sweep with one of Optuna's pruners.

    Every run writes its values to `progress.json` in its folder; the folders of a sweep's runs are
    siblings, also on several machines. Hydra's Optuna sweeper gives its runs no access to its own
    study, and other sweepers have none, so a study is rebuilt from these files. Without Optuna
    nothing is stopped.

    Args:
        run_dir: this run's folder.
        metric: name of a validation metric.
        direction: "minimize" or "maximize" it.
        startup_runs: number of finished runs before any run is stopped.
        warmup_iterations: iterations of a run before it may be stopped.
        pruner: an `optuna.pruners.BasePruner`; None takes `MedianPruner`, which compares a run's
            best value with the median of the finished runs at the same iteration.

    Raises:
        UsageError: `direction` is unknown, or (after the first validation) the metric is not
            logged.
    """

    def __init__(
        self,
        run_dir: str | Path,
        metric: str = "val/loss",
        direction: Direction = "minimize",
        startup_runs: int = 4,
        warmup_iterations: int = 0,
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
        # One process decides: another machine may see the other runs' files later.
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
        """Yield the values by iteration of the sweep's other finished runs."""
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
    """Return a run's metric; raise `UsageError` if it was not logged."""
    if name not in metrics:
        known = ", ".join(sorted(name for name in metrics if name.startswith("val")))
        raise UsageError(
            f"objective.metric={name} is not measured; validation gives {known or 'nothing here'}"
        )
    return metrics[name]
