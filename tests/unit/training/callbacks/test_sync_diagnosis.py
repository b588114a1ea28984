"""Diagnosis of sync experts that do not learn; each cause is produced in real training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_training import EXPERT, SPEC
from helpers.tiny_training import TRAINER as TINY_TRAINER
from safetensors.numpy import load_file, save_file

from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.training.callbacks.sync_diagnosis import (
    Evidence,
    SyncDiagnosis,
    corpus_offsets,
    diagnose,
)
from talkinghead.training.modules.sync_expert_module import SyncExpertModule
from talkinghead.training.training_run import build_trainer, train

TRAINER = {**TINY_TRAINER, "limit_val_batches": 0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(path, SPEC, num_speakers=1, clips_per_speaker=6, seconds=3.0)
    return path


def with_mel(corpus: Path, copy: Path, change: Any) -> Path:
    """Copy a corpus with changed audio features."""
    shutil.copytree(corpus, copy)
    for clip in Manifest.load(copy).clips:
        tensors = load_file(copy / clip.path)
        tensors["mel"] = np.ascontiguousarray(change(tensors["mel"]))
        save_file(tensors, copy / clip.path, {"num_frames": str(clip.num_frames)})
    return copy


def late(frames: int) -> Any:
    return lambda mel: np.roll(mel, round(3.2 * frames), axis=1)


def fit(
    corpus: Path,
    iterations: int,
    *,
    batch_size: int = 8,
    num_frames: int = 10,
    lr: float = 3e-3,
    loss: Any = "info_nce",
    collapsed: bool = False,
    augmented: bool = True,
    accumulate: int = 1,
) -> None:
    torch.manual_seed(0)
    optimizer = {"lr": lr, "warmup_iterations": 2}
    module = SyncExpertModule(SPEC, EXPERT, optimizer, loss=loss, max_iterations=iterations)
    if collapsed:
        expert = module.sync_expert
        for parameter in (*expert.image_project.parameters(), *expert.audio_project.parameters()):
            torch.nn.init.zeros_(parameter)
    options = {**module.window, "num_frames": num_frames, "augmentation": {} if augmented else None}
    data = LipSyncDataModule(corpus, SPEC, batch_size=batch_size, num_workers=0, **options)
    trainer = {**TRAINER, "accumulate_grad_batches": accumulate}
    train(module, data, build_trainer(trainer, [], [SyncDiagnosis(iterations)]))


def test_a_small_batch_is_diagnosed(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(corpus, 24, batch_size=2, num_frames=5)
    assert "at chance after 24 iterations" in caplog.text
    assert "the batch is too small: 2 windows" in caplog.text
    assert "raise data.batch_size" in caplog.text


@pytest.mark.parametrize(("frames", "found"), [(10, "10 frames late"), (-9, "9 frames early")])
def test_shifted_audio_is_diagnosed(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, frames: int, found: str
) -> None:
    shifted = with_mel(corpus, tmp_path / "shifted", late(frames))
    fit(shifted, 12)
    assert f"the audio is {found}, measured on the lips of 4 clips" in caplog.text
    assert "sync.checkpoint=default" in caplog.text


def test_silent_clips_are_diagnosed(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    muted = with_mel(corpus, tmp_path / "muted", lambda mel: np.full_like(mel, MEL_SILENCE))
    fit(muted, 4, augmented=False)
    assert "100% of the windows are silent: use clips with speech" in caplog.text


def test_a_collapsed_embedding_is_diagnosed(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(corpus, 4, collapsed=True, loss="bce")
    assert "the video embedding has collapsed: its variance over a batch is 0 " in caplog.text
    assert "start again from new weights" in caplog.text


def test_accumulated_batches_are_supported(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(corpus, 5, collapsed=True, accumulate=2)
    assert "at chance after 5 iterations" in caplog.text
    assert "the video embedding has collapsed" in caplog.text


def test_a_too_high_learning_rate_is_diagnosed(
    corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(corpus, 4, lr=10.0)
    assert "the learning rate is too high" in caplog.text
    assert "start again with a tenth of optimizer.lr" in caplog.text


def test_a_learning_expert_gives_no_warning(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(corpus, 32)
    assert "chance" not in caplog.text


def test_corpus_offsets_measure_shifted_audio(corpus: Path, tmp_path: Path) -> None:
    assert corpus_offsets(corpus, 32) == [0, 0, 0, 0]
    assert corpus_offsets(with_mel(corpus, tmp_path / "late", late(4)), 2) == [4, 4]


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
        ({"loss": 12.0}, "the loss jumps far above chance"),
        ({"spread_audio": 0.0}, "audio embedding has collapsed"),
        ({"offsets": [9, -7, 12, -9, 1, -2]}, "in sync in only 33% of 6 clips"),
        # Causes with side effects come first.
        ({"silent": 1.0, "spread_audio": 0.0, "num_windows": 2}, "100% of the windows are silent"),
        ({"step_size": 5.0, "spread_audio": 0.0}, "learning rate"),
        ({"num_windows": 8, "offsets": [6, 6, 7]}, "6 frames late"),
    ],
)
def test_the_likeliest_cause_is_named(change: dict[str, Any], cause: str) -> None:
    assert cause in diagnose(Evidence(**{**HEALTHY, **change}))
