"""Tests of the diagnosis of sync experts that do not learn, with training runs for each cause."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_training import EXPERT, SPEC, TRAINER
from safetensors.numpy import load_file, save_file

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.training.callbacks.sync_diagnosis import (
    Evidence,
    SyncDiagnosis,
    corpus_offsets,
    diagnose,
)
from talkinghead.training.modules.sync_expert_module import SyncExpertModule
from talkinghead.training.training_run import build_trainer, train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(path, SPEC, num_speakers=1, clips_per_speaker=6, seconds=3.0)
    return path


def delayed(corpus: Path, copy: Path, frames: int) -> Path:
    """Copy a corpus and delay its audio features."""
    shutil.copytree(corpus, copy)
    for clip in Manifest.load(copy).clips:
        tensors = load_file(copy / clip.path)
        tensors["mel"] = np.roll(tensors["mel"], round(3.2 * frames), axis=1)
        save_file(tensors, copy / clip.path, {"num_frames": str(clip.num_frames)})
    return copy


def fit(
    corpus: Path,
    iterations: int,
    *,
    batch_size: int = 8,
    num_frames: int = 10,
    lr: float = 3e-3,
    collapsed: bool = False,
    accumulate: int = 1,
) -> None:
    torch.manual_seed(0)
    optimizer = {"lr": lr, "warmup_iterations": 2}
    module = SyncExpertModule(SPEC, EXPERT, optimizer, max_iterations=iterations)
    if collapsed:
        expert = module.sync_expert
        for parameter in (*expert.image_project.parameters(), *expert.audio_project.parameters()):
            torch.nn.init.zeros_(parameter)
    options = {**module.window, "num_frames": num_frames, "augmentation": {}}
    data = LipSyncDataModule(corpus, SPEC, batch_size=batch_size, num_workers=0, **options)
    trainer = {**TRAINER, "limit_val_batches": 0, "accumulate_grad_batches": accumulate}
    train(module, data, build_trainer(trainer, [], [SyncDiagnosis(iterations)]))


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        pytest.param(
            *({"batch_size": 2, "num_frames": 5, "iterations": 24}, "the batch is too small: 2"),
            marks=pytest.mark.slow,
        ),
        pytest.param({"lr": 10.0}, "the learning rate is too high", marks=pytest.mark.slow),
        pytest.param(
            *({"collapsed": True, "accumulate": 2}, "the video embedding has collapsed"),
            marks=pytest.mark.slow,
        ),
        ({"delay": 10}, "the audio is 10 frames late, measured on the lips of 4 clips"),
    ],
    ids=["small batch", "learning rate", "collapsed", "late"],
)
def test_training_at_chance_is_diagnosed(
    corpus: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    cause: str,
) -> None:
    corpus = delayed(corpus, tmp_path / "copy", options.pop("delay", 0))
    iterations = options.pop("iterations", 12)
    fit(corpus, iterations, **options)
    assert f"at chance after {iterations} iterations" in caplog.text
    assert cause in caplog.text


@pytest.mark.slow
def test_learning_expert_gives_no_warning(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(corpus, 32)
    assert "chance" not in caplog.text


def test_offsets_are_measured_in_clips_that_the_data_module_opens(
    corpus: Path, tmp_path: Path
) -> None:
    shutil.copy(corpus / "manifest.json", tmp_path)
    data = LipSyncDataModule(tmp_path, SPEC)
    assert corpus_offsets(data, 4) == []
    data.open_clip = lambda path: ClipFile(corpus / path)
    offsets = corpus_offsets(data, 4)
    assert offsets
    assert offsets == corpus_offsets(LipSyncDataModule(corpus, SPEC), 4)


HEALTHY: dict[str, Any] = {
    "loss": 4.85,
    "chance": 4.85,
    "num_windows": 128,
    "silent": 0.1,
    "spread_video": 0.3,
    "spread_audio": 0.3,
    "step_size": 0.005,
    "grad_norm": 1.0,
    "offsets": [0, 1, -1, 0],
}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({}, "the measurements show no cause"),
        ({"offsets": [-9, -9, -8]}, "9 frames early"),
        ({"loss": 12.0}, "the loss jumps far above chance"),
        ({"spread_audio": 0.0}, "audio embedding has collapsed"),
        ({"offsets": [9, -7, 12, -9, 1, -2]}, "in sync in only 33% of 6 clips"),
        # Causes that have the symptoms of other causes are reported first.
        ({"silent": 1.0, "spread_audio": 0.0, "num_windows": 2}, "100% of the windows are silent"),
        ({"step_size": 5.0, "spread_audio": 0.0}, "learning rate"),
        ({"num_windows": 8, "offsets": [6, 6, 7]}, "6 frames late"),
    ],
)
def test_most_likely_cause_is_reported(change: dict[str, Any], cause: str) -> None:
    assert cause in diagnose(Evidence(**{**HEALTHY, **change}))
