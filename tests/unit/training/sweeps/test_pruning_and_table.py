"""Tests of the pruning and the table of the runs of a sweep, and of missing sweep plugins."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_training import TRAINER, CurveModule
from torch.utils.data import DataLoader

from talkinghead.errors import UsageError
from talkinghead.training.sweeps import pruning
from talkinghead.training.sweeps.pruning import PROGRESS_NAME, SweepPruning
from talkinghead.training.sweeps.sweep_table import TABLE_NAME, write_table
from talkinghead.training.training_run import build_trainer


def make_run(folder: Path, overrides: list[str], metrics: Any = None, state: str = "") -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    if state:
        (folder / PROGRESS_NAME).write_text(json.dumps({"state": state, "values": {}}))


def test_table_lists_the_best_run_first(tmp_path: Path) -> None:
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


def test_run_whose_metrics_are_being_written_is_unfinished(tmp_path: Path) -> None:
    make_run(tmp_path / "0", ["seed=1"], {"val/loss": 2.0})
    (tmp_path / "0" / "metrics.json").write_text('{"val/loss": ')
    (row,) = write_table(tmp_path, "val/loss", "minimize")
    assert row == {"run": "0", "state": "unfinished", "val/loss": "", "seed": "1"}


def test_sweep_without_runs_has_an_empty_table(tmp_path: Path) -> None:
    assert write_table(tmp_path, "val/loss", "minimize") == []
    assert (tmp_path / TABLE_NAME).read_text().strip() == "run,state,val/loss"


@pytest.mark.parametrize(
    ("choice", "plugin"),
    [("optuna", "hydra_optuna_sweeper"), ("slurm", "hydra_submitit_launcher")],
)
def test_missing_plugin_error_names_the_extra_to_install(
    tmp_path: Path, choice: str, plugin: str
) -> None:
    # Hydra looks for plugins once per process, so a new process is needed without the plugin.
    code = (
        "import os, sys, hydra_plugins; from pathlib import Path\n"
        f"paths, folder = hydra_plugins.__path__, Path({str(tmp_path)!r})\n"
        "plugins = [p for path in paths for p in Path(path).iterdir()]\n"
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


def run(folder: Path, values: list[float], **options: Any) -> tuple[int, str]:
    """Train, and return the number of validations and the state of the run."""
    module = CurveModule(values)
    loader = DataLoader([0])  # type: ignore[arg-type]
    trainer_options = {**TRAINER, "max_epochs": len(values)}
    trainer = build_trainer(trainer_options, [], [SweepPruning(str(folder), **options)])
    trainer.fit(module, loader, loader)
    state = json.loads((folder / PROGRESS_NAME).read_text())["state"]
    return module.iteration // 10, state


def test_runs_worse_than_the_median_of_finished_runs_are_stopped(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    for number, final in enumerate([1.0, 2.0, 3.0]):
        assert run(tmp_path / str(number), [5.0, final], startup_runs=3) == (2, "finished")
    # The median of the finished runs after two validations is 2. The best value of a run so far is
    # compared with it.
    assert run(tmp_path / "worse", [5.0, 2.5, 1.0], startup_runs=3) == (2, "stopped")
    assert run(tmp_path / "better", [5.0, 1.5, 9.0], startup_runs=3) == (3, "finished")
    assert run(tmp_path / "early", [9.0, 9.0], startup_runs=3, warmup_iterations=21)[0] == 2
    assert run(tmp_path / "higher", [6.0, 9.0], startup_runs=3, direction="maximize")[0] == 2
    assert run(tmp_path / "lower", [4.0, 9.0], startup_runs=3, direction="maximize")[0] == 1
    assert run(tmp_path / "nan", [float("nan"), 1.0], startup_runs=3) == (1, "stopped")
    assert run(tmp_path / "few", [9.0, 9.0], startup_runs=30) == (2, "finished")
    pruner = optuna.pruners.ThresholdPruner(upper=3.0)
    assert run(tmp_path / "other", [2.0, 4.0, 1.0], pruner=pruner) == (2, "stopped")


def test_without_optuna_no_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pruning, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        run(tmp_path / "0", [1.0])
        assert run(tmp_path / "1", [9.0, 9.0], startup_runs=1) == (2, "finished")
    assert "pip install 'talkinghead[sweep]'" in caplog.text


def test_unknown_metric_or_direction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"objective\.metric=val/l2 is not measured.*val/loss"):
        run(tmp_path / "0", [1.0], metric="val/l2")
    with pytest.raises(UsageError, match=r"objective\.direction=down"):
        SweepPruning(str(tmp_path), direction="down")  # type: ignore[arg-type]
