"""Progress of a run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from helpers.tiny_training import TRAINER, make_data, make_module

from talkinghead.training.callbacks import progress
from talkinghead.training.callbacks.last_checkpoint import LastCheckpoint
from talkinghead.training.training_run import build_trainer, train


def test_a_piped_run_logs_iterations_and_the_next_commands(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_LINE_INTERVAL_S", 0.0)
    module = make_module(max_iterations=3)
    options = {**TRAINER, "enable_progress_bar": True}
    trainer = build_trainer(options, [], [LastCheckpoint(str(tmp_path))])
    with caplog.at_level(logging.INFO):
        train(module, make_data(corpus, module), trainer)
    for iteration in (1, 2, 3):
        assert f"iteration {iteration} of 3, about" in caplog.text
    checkpoint = tmp_path / "last.ckpt"
    assert f"finished after iteration 3 of 3: {checkpoint} is saved" in caplog.text
    assert f"talkinghead evaluate corpus={corpus} checkpoint={checkpoint}" in caplog.text
    assert "talkinghead predict face=FACE audio=AUDIO" in caplog.text
