"""Sweeps: hopeless runs stop, and a table has them all."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader

from talkinghead.errors import UsageError
from talkinghead.training.sweeps.pruning import PROGRESS_NAME, StopHopeless
from talkinghead.training.sweeps.sweep_table import TABLE_NAME, write_table


class Curve(L.LightningModule):
    """A module whose validation gives the values it was made with."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.values, self.iteration = values, 0

    def training_step(self, batch: Any) -> Any:
        self.iteration += 10
        return self.weight.sum()

    def validation_step(self, batch: Any) -> None:
        self.log("val/loss", self.values[self.iteration // 10 - 1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def run(folder: Path, values: list[float], **options: Any) -> tuple[int, str]:
    """How many validations a run has lived through, and its state."""
    module = Curve(values)
    loader = DataLoader([0])  # type: ignore[arg-type]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=len(values),
        logger=False,
        callbacks=[StopHopeless(str(folder), **options)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loader, loader)
    state = json.loads((folder / PROGRESS_NAME).read_text())["state"]
    return module.iteration // 10, state


def test_a_run_worse_than_the_median_of_the_finished_ones_stops(tmp_path: Path) -> None:
    for number, final in enumerate([1.0, 2.0, 3.0]):
        assert run(tmp_path / str(number), [5.0, final], startup_runs=3) == (2, "finished")
    # The median after two validations is 2; the best value so far counts.
    assert run(tmp_path / "worse", [5.0, 2.5, 1.0], startup_runs=3) == (2, "stopped")
    assert run(tmp_path / "better", [5.0, 1.5, 9.0], startup_runs=3) == (3, "finished")
    assert run(tmp_path / "early", [9.0, 9.0], startup_runs=3, warmup_iterations=21)[0] == 2
    assert run(tmp_path / "upwards", [6.0, 9.0], startup_runs=3, direction="maximize")[0] == 2
    assert run(tmp_path / "downwards", [4.0, 9.0], startup_runs=3, direction="maximize")[0] == 1
    assert run(tmp_path / "nan", [float("nan"), 1.0], startup_runs=3) == (1, "stopped")


def test_few_finished_runs_stop_nobody(tmp_path: Path) -> None:
    run(tmp_path / "0", [1.0, 1.0])
    assert run(tmp_path / "1", [9.0, 9.0], startup_runs=2) == (2, "finished")


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_rule_is_optunas(tmp_path: Path, direction: Any) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=20)
    study = optuna.create_study(direction=direction, pruner=pruner)
    rng = np.random.default_rng(0)
    outcomes = set()
    for number in range(30):
        trial, folder = study.ask(), tmp_path / str(number)
        callback = StopHopeless(str(folder), direction=direction, warmup_iterations=20)
        module = SimpleNamespace(iteration=0)
        stopped = False
        for value in (rng.normal() + rng.normal(scale=0.5, size=6)).tolist():
            module.iteration += 10
            trainer = _fake_trainer(value)
            callback.on_validation_end(trainer, module)  # type: ignore[arg-type]
            trial.report(value, module.iteration)
            stopped = trial.should_prune()
            assert callback.stopped == stopped
            if stopped:
                break
        outcomes.add(stopped)
        callback.on_train_end(trainer, module)  # type: ignore[arg-type]
        state = "PRUNED" if stopped else "COMPLETE"
        study.tell(trial, None if stopped else value, optuna.trial.TrialState[state])
    assert outcomes == {True, False}


def _fake_trainer(value: float) -> Any:
    """What the callback asks of a Trainer, without the half second that one takes."""
    return SimpleNamespace(
        sanity_checking=False,
        callback_metrics={"val/loss": torch.tensor(value, dtype=torch.float64)},
        strategy=SingleDeviceStrategy("cpu"),
        should_stop=False,
        interrupted=False,
        is_global_zero=True,
    )


def test_a_metric_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"objective\.metric=val/l2 is not measured.*val/loss"):
        run(tmp_path / "0", [1.0], metric="val/l2")
    with pytest.raises(UsageError, match=r"objective\.direction=down"):
        StopHopeless(str(tmp_path), direction="down")  # type: ignore[arg-type]


def make_run(folder: Path, overrides: list[str], metrics: Any = None, state: str = "") -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if state:
        (folder / PROGRESS_NAME).write_text(json.dumps({"state": state, "values": {}}))


def test_the_table_has_the_best_run_first(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["seed=1", "optimizer.lr=0.1"], {"val/loss": 2.0, "val/l1": 0.2})
    make_run(tmp_path / "1", ["seed=2", "+name='a, b'"], {"val/loss": 1.0}, "finished")
    make_run(tmp_path / "2", ["seed=3"], {"val/loss": 3.0}, "stopped")
    make_run(tmp_path / "3", ["seed=4"], None, "running")
    make_run(tmp_path / "4", ["seed=5"], {"val/loss": float("nan")})
    write_table(tmp_path, "val/loss", "minimize")
    with (tmp_path / TABLE_NAME).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["1", "0", "2", "3", "4"]
    states = ["finished", "finished", "stopped", "unfinished", "finished"]
    assert [row["state"] for row in rows] == states
    assert rows[0]["name"] == "a, b"
    assert rows[1] == {
        **{"run": "0", "state": "finished", "val/loss": "2.0", "seed": "1"},
        **{"name": "", "optimizer.lr": "0.1", "val/l1": "0.2"},
    }
    best = write_table(tmp_path, "val/loss", "maximize")
    assert [row["run"] for row in best][:3] == ["2", "0", "1"]


def test_a_sweep_without_runs_has_an_empty_table(tmp_path: Path) -> None:
    assert write_table(tmp_path, "val/loss", "minimize") == []
    assert (tmp_path / TABLE_NAME).read_text().strip() == "run,state,val/loss"


@pytest.mark.parametrize(
    ("choice", "plugin"),
    [("optuna", "hydra_optuna_sweeper"), ("slurm", "hydra_submitit_launcher")],
)
def test_optuna_and_slurm_need_an_extra_and_say_so(
    tmp_path: Path, choice: str, plugin: str
) -> None:
    # As if the plugin were not installed; Hydra looks for plugins once a process.
    code = (
        "import os, sys, hydra_plugins; from pathlib import Path\n"
        f"there, folder = hydra_plugins.__path__, Path({str(tmp_path)!r})\n"
        "plugins = [p for path in there for p in Path(path).iterdir()]\n"
        f"[os.symlink(p, folder / p.name) for p in plugins if p.name != {plugin!r}]\n"
        "hydra_plugins.__path__ = [str(folder)]\n"
        "from talkinghead.cli.main import main\n"
        f"sys.exit(main(['train', '-m', 'sweep={choice}', 'experiment=smoke']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "is not installed: pip install 'talkinghead[sweep]'" in done.stderr
    assert done.stderr.count("\n") == 1
