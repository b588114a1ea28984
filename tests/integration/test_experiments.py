"""Tests that train each experiment for one step on drawn faces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.tiny_training import SMALL_RUN

from talkinghead.cli.main import main
from talkinghead.paths import conf_dir

# The slow ones train large networks; test_end_to_end.py trains `smoke`, a small generator.
FAST = ("lip_regressor", "sync_expert")
NAMES = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
EXPERIMENTS = [
    pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in NAMES
]
NO_OPENINGS = ("lip_regressor", "release_expert", "smoke", "smoke_expert", "sync_expert")
TINY = [
    *("data=synthetic", *SMALL_RUN, "data.num_speakers=2", "data.clips_per_speaker=3"),
    *("data.seconds=2.0", "data.speaker_weights=null", "model.max_iterations=1"),
    "hydra/job_logging=none",
]
FEW_OPENINGS = ["callbacks.opening.num_clips=1", "callbacks.opening.num_frames=10"]
FEW_ROWS = ["callbacks.preview.num_rows=1", "callbacks.preview.clip_frames=5"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_trains_one_step(experiment: str, tmp_path: Path) -> None:
    small = TINY if experiment in NO_OPENINGS else TINY + FEW_OPENINGS + FEW_ROWS
    assert main(["train", f"experiment={experiment}", *small, f"hydra.run.dir={tmp_path}"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
