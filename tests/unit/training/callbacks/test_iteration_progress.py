"""Tests of the progress display of a training run."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from talkinghead.training.callbacks import progress
from talkinghead.training.callbacks.progress import IterationProgress


def test_bar_is_shown_on_stderr_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "stderr_console", lambda: console)
    bar = IterationProgress()
    trainer: Any = SimpleNamespace(loggers=[], progress_bar_metrics={"val/loss": 0.25})
    module = SimpleNamespace(iteration=3, max_iterations=10)
    bar.on_train_start(trainer, module)
    module.iteration = 4
    bar.on_train_batch_end(trainer, module)
    bar.on_train_end()
    assert "4/10" in shown.getvalue()
    assert "val/loss 0.25" in shown.getvalue()
    assert capsys.readouterr().out == ""
