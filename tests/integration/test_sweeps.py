"""Sweeps through the command line: launchers, table, Optuna."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from helpers.tiny_training import SMALL_RUN

from talkinghead.cli.main import main

TINY = [
    *("experiment=smoke", *SMALL_RUN, "data.seconds=1.6", "model.max_iterations=1"),
    *("callbacks.preview=null", "hydra/job_logging=none"),
]


def _sweep(folder: Path, *arguments: str) -> list[dict[str, str]]:
    """Run a sweep and return the rows of its table."""
    assert main(["train", "-m", *TINY, *arguments, f"hydra.sweep.dir={folder}"]) == 0
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_optuna_minimises_the_objective(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    rows = _sweep(tmp_path, "sweep=optuna", "hydra.sweeper.n_trials=2")
    losses = [float(row["val/loss"]) for row in rows]
    assert losses == sorted(losses)
    rates = {float(row["optimizer.lr"]) for row in rows}
    assert len(rates) == 2
    assert all(1e-4 <= rate <= 3e-3 for rate in rates)
    # Optuna received the same values.
    found = (tmp_path / "optimization_results.yaml").read_text()
    assert rows[0]["val/loss"] in found
    assert {row["state"] for row in rows} == {"finished"}


# `submitit_local` is submitit's local executor, for machines without SLURM.
@pytest.mark.parametrize(
    "launcher",
    ["basic", *(pytest.param(n, marks=pytest.mark.slow) for n in ("joblib", "submitit_local"))],
)
@pytest.mark.slow
def test_launchers_run_every_value(tmp_path: Path, launcher: str) -> None:
    if launcher == "submitit_local":
        pytest.importorskip("submitit")
    sweep = "joblib" if launcher == "joblib" else "default"
    rows = _sweep(tmp_path, f"sweep={sweep}", f"hydra/launcher={launcher}", "seed=1,2")
    assert {row["seed"] for row in rows} == {"1", "2"}
    assert rows[0]["val/loss"] != rows[1]["val/loss"]
    for row in rows:
        progress = json.loads((tmp_path / row["run"] / "progress.json").read_text())
        assert progress == {"state": "finished", "values": {"1": float(row["val/loss"])}}
