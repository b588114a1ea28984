"""Tests of the callbacks that monitor cost, mouth opening and progress."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_training import TRAINER, fit, make_data, make_module

from talkinghead.training.callbacks import monitors, progress
from talkinghead.training.callbacks.last_checkpoint import LastCheckpoint
from talkinghead.training.callbacks.monitors import CostMonitor, OpeningMonitor, peak_memory_mib
from talkinghead.training.training_run import build_trainer, train
from talkinghead.types import Box, Face, UInt8Array


def test_loader_wait_is_the_time_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # The simulated loader takes 3 s for a batch, and training takes 1 s.
    clock_s = itertools.accumulate(itertools.chain([0], itertools.cycle([1, 0, 3])))
    monkeypatch.setattr(monitors.time, "monotonic", lambda: float(next(clock_s)))
    logged: dict[str, float] = {}
    monitor, trainer = CostMonitor(), SimpleNamespace(world_size=2)
    module: Any = SimpleNamespace(device=torch.device("cpu"), log=logged.__setitem__)
    batch = {"index": torch.arange(3)}
    for _ in range(8):
        monitor.on_train_batch_start(trainer, module, batch, 0)
        monitor.on_train_batch_end(trainer, module, None, batch, 0)
    assert logged["cost/loader_wait_fraction"] == pytest.approx(0.75)
    assert logged["cost/samples_per_s"] == pytest.approx(6 / 4)
    assert logged["cost/memory_mib"] == pytest.approx(peak_memory_mib(module.device), rel=0.1)
    monitor.on_train_epoch_start(trainer, module)
    logged.clear()
    monitor.on_train_batch_start(trainer, module, batch, 0)
    monitor.on_train_batch_end(trainer, module, None, batch, 0)
    assert not logged, "validation was counted as waiting"


class DrawnMouthDetector:
    """A detector of the dark mouth of a drawn face; FaceMesh does not detect drawn faces."""

    topology = "ibug68"

    def detect(self, image: UInt8Array) -> list[Face]:
        return [self.track(image, None)]

    def track(self, image: UInt8Array, previous: Face | None) -> Face:
        dark = np.flatnonzero(image[94:144, 80].mean(axis=1) < 70)
        points = np.zeros((68, 2), np.float32)
        points[45] = (62, 0)
        points[66, 1] = len(dark)
        return Face(Box(0, 0, 160, 160), points, 1.0, self.topology)


def test_opening_monitor_compares_with_the_real_mouth(corpus: Path, tmp_path: Path) -> None:
    module = make_module(max_iterations=2, balance_every=1)
    data = make_data(corpus, module, num_frames=5)
    monitor = OpeningMonitor(num_clips=2, num_frames=20)
    monitor._detector = DrawnMouthDetector()
    trainer = fit(module, data, monitor, CostMonitor())
    metrics = trainer.callback_metrics
    # An untrained generator copies the reference, so its mouth hardly moves.
    assert metrics["val/opening_motion"] < 0.3
    assert "cost/loader_wait_fraction" in metrics
    assert metrics["train/balance/l1"] > 0
    assert metrics["train/balance/gradient"] > 0

    # The module returns the real mouths for their own audio, and reversed ones for other audio.
    batch = data.preview_batch(2, 20)["mouths"]
    mouths = iter([batch[:1], batch[:1].flip(1), batch[1:], batch[1:].flip(1)])
    module.forward = lambda *_: SimpleNamespace(mouth=next(mouths))
    logged: dict[str, float] = {}
    module.log = lambda name, value, **_: logged.update({name: value})
    monitor.on_validation_epoch_end(trainer, module)
    assert logged["val/opening_r"] > 0.95
    assert logged["val/opening_motion"] == pytest.approx(1, abs=0.1)
    assert logged["val/audit/opening_r_other_audio"] < 0.9


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
