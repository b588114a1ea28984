"""SIGKILL in adversarial training: the resumed run equals an uninterrupted run."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_training import EXPERT as SMALL
from helpers.tiny_training import SPEC

from talkinghead.cli.main import main
from talkinghead.models.checkpoint import EXPERT, build, save_release

AFTER = 20
RAMP = "{{kind: linear, start: 1e-4, end: {}, start_iteration: 2, end_iteration: 40}}"
SECOND_STAGE = [
    *("experiment=smoke", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"),
    *("av.face_size=160", "av.mouth_size=48", "av.mouth_x=40", "av.mouth_y=72", "av.mouth_side=80"),
    *("data.clips_per_speaker=3", "data.seconds=1.6", "data.iterations_per_epoch=11"),
    *("data.val_windows=2", "model.generator.dim=32", "model.sync_discriminator=frozen"),
    f"loss.weights.adversarial={RAMP.format(0.02)}",
    f"loss.weights.feature_matching={RAMP.format(0.3)}",
    *("loss.weights.sync=0.1", "optimizer.warmup_iterations=10"),
    *("callbacks.preview=null", "callbacks.best=null"),
]


def losses(run: Path) -> dict[int, dict[str, str]]:
    """Return the logged losses as text, by iteration counted from 0.

    In the first iteration of an epoch and after resuming, Lightning drops values that were logged
    before the step of the second optimizer; the losses of the generator are always present.
    """
    with (run / "csv" / "metrics.csv").open() as file:
        return {
            int(row["step"]): {k: v for k, v in row.items() if k.startswith("train/") and v}
            for row in csv.DictReader(file)
            if row["train/generator/loss"]
        }


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    expert, meta = build(EXPERT, SMALL, SPEC), {EXPERT: SMALL}
    meta |= {"av": SPEC.to_dict(), "license": "MIT", "trained_on": "nothing"}
    save_release(tmp_path / "expert.safetensors", EXPERT, expert, meta)
    common = [*SECOND_STAGE, f"data.corpus_dir={tmp_path / 'corpus'}"]
    common.append(f"model.sync_expert={tmp_path / 'expert.safetensors'}")
    killed, resumed, whole = (tmp_path / name for name in ("killed", "resumed", "whole"))
    last = killed / "checkpoints" / "last.ckpt"

    # Checkpoints are a few iterations apart, so some iterations are lost and repeated.
    command = [sys.executable, "-m", "talkinghead", "train", *common, f"hydra.run.dir={killed}"]
    command += ["model.max_iterations=100000", "callbacks.last.minutes=0.01"]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        while not last.is_file():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(np.random.default_rng(0).uniform(0.0, 1.5))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    restored = torch.load(last, weights_only=True)["iteration"]
    common.append(f"model.max_iterations={restored + AFTER}")
    assert main(["train", *common, f"ckpt_path={last}", f"hydra.run.dir={resumed}"]) == 0
    assert main(["train", *common, f"hydra.run.dir={whole}"]) == 0
    expected, found = losses(whole), losses(resumed)
    assert list(found) == list(range(restored, restored + AFTER))
    logged: set[str] = set()
    for iteration, row in found.items():
        both = row.keys() & expected[iteration].keys()
        assert {"train/generator/loss", "train/generator/sync"} <= both
        assert {k: row[k] for k in both} == {k: expected[iteration][k] for k in both}, iteration
        logged |= both
    assert {"train/discriminator/mouth_fake", "train/discriminator/face_fake"} <= logged
    assert {"train/generator/adversarial", "train/generator/feature_matching"} <= logged
