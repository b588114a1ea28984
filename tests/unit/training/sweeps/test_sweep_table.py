"""The table of a sweep's runs, and the plugins that sweeps need."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from talkinghead.training.sweeps.pruning import PROGRESS_NAME
from talkinghead.training.sweeps.sweep_table import TABLE_NAME, write_table


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


def test_a_sweep_without_runs_has_an_empty_table(tmp_path: Path) -> None:
    assert write_table(tmp_path, "val/loss", "minimize") == []
    assert (tmp_path / TABLE_NAME).read_text().strip() == "run,state,val/loss"


@pytest.mark.parametrize(
    ("choice", "plugin"),
    [("optuna", "hydra_optuna_sweeper"), ("slurm", "hydra_submitit_launcher")],
)
def test_a_missing_plugin_names_the_extra_to_install(
    tmp_path: Path, choice: str, plugin: str
) -> None:
    # Hydra looks for plugins once per process, so the plugin is hidden in a new one.
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
