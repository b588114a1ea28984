"""Pruning of a sweep's runs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from talkinghead.errors import UsageError
from talkinghead.training.sweeps import pruning
from talkinghead.training.sweeps.pruning import PROGRESS_NAME, SweepPruning


class Curve(L.LightningModule):
    """A module whose validation loss takes given values."""

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
    """Return the number of validations of a run, and its state."""
    module = Curve(values)
    loader = DataLoader([0])  # type: ignore[arg-type]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=len(values),
        logger=False,
        callbacks=[SweepPruning(str(folder), **options)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loader, loader)
    state = json.loads((folder / PROGRESS_NAME).read_text())["state"]
    return module.iteration // 10, state


def test_runs_worse_than_the_median_of_finished_runs_are_stopped(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    for number, final in enumerate([1.0, 2.0, 3.0]):
        assert run(tmp_path / str(number), [5.0, final], startup_runs=3) == (2, "finished")
    # The median after two validations is 2; a run is judged by its best value so far.
    assert run(tmp_path / "worse", [5.0, 2.5, 1.0], startup_runs=3) == (2, "stopped")
    assert run(tmp_path / "better", [5.0, 1.5, 9.0], startup_runs=3) == (3, "finished")
    assert run(tmp_path / "early", [9.0, 9.0], startup_runs=3, warmup_iterations=21)[0] == 2
    assert run(tmp_path / "higher", [6.0, 9.0], startup_runs=3, direction="maximize")[0] == 2
    assert run(tmp_path / "lower", [4.0, 9.0], startup_runs=3, direction="maximize")[0] == 1
    assert run(tmp_path / "nan", [float("nan"), 1.0], startup_runs=3) == (1, "stopped")
    assert run(tmp_path / "few", [9.0, 9.0], startup_runs=30) == (2, "finished")


def test_any_optuna_pruner_can_be_used(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    pruner = optuna.pruners.ThresholdPruner(upper=3.0)
    assert run(tmp_path / "0", [2.0, 4.0, 1.0], pruner=pruner) == (2, "stopped")


def test_without_optuna_no_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pruning, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        run(tmp_path / "0", [1.0])
        assert run(tmp_path / "1", [9.0, 9.0], startup_runs=1) == (2, "finished")
    assert "pip install 'talkinghead[sweep]'" in caplog.text


def test_an_unknown_metric_or_direction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"objective\.metric=val/l2 is not measured.*val/loss"):
        run(tmp_path / "0", [1.0], metric="val/l2")
    with pytest.raises(UsageError, match=r"objective\.direction=down"):
        SweepPruning(str(tmp_path), direction="down")  # type: ignore[arg-type]
