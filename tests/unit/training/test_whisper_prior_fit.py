"""Fitting of the Whisper lip prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.errors import CorpusError
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.predict.audio.lip_prior import predict_lip_motion
from talkinghead.predict.audio.whisper_prior import WhisperLipPrior
from talkinghead.training.whisper_prior_fit import fit_whisper_lip_prior
from talkinghead.types import AVSpec, FloatArray

SPEC = AVSpec()


class LoudnessEncoder:
    """An encoder whose features are a fixed random map of the loudness, at 50 Hz."""

    def __init__(self) -> None:
        self.map = np.random.default_rng(0).normal(size=(1, 8)).astype(np.float32)

    def encode(self, windows: FloatArray) -> FloatArray:
        level = np.abs(windows[:, : windows.shape[1] // 320 * 320])
        return level.reshape(len(windows), -1, 320).mean(2)[:, :, None] @ self.map


def opening(motion: FloatArray) -> FloatArray:
    return motion[:, 17:20, 1].mean(1) - motion[:, 13:16, 1].mean(1)


def test_fit_recovers_a_linear_map_and_keeps_silent_lips_at_rest(tmp_path: Path) -> None:
    make_synthetic_corpus(tmp_path, SPEC, num_speakers=2, clips_per_speaker=3, seconds=2.0)
    encoder: Any = LoudnessEncoder()
    fit_whisper_lip_prior(tmp_path, encoder, tmp_path / "lips.safetensors")
    lip_prior = WhisperLipPrior(encoder, tmp_path / "lips.safetensors")
    clip = ClipFile(tmp_path / Manifest.load(tmp_path).split("train")[0].path)
    samples = (clip.tensor("audio") / 32_767).astype(np.float32)
    real = opening(lip_motion(clip.tensor("lips")))
    predicted = opening(predict_lip_motion(lip_prior, samples, SPEC))[: len(real)]
    assert np.corrcoef(predicted, real)[0, 1] > 0.7
    silent = opening(predict_lip_motion(lip_prior, np.zeros(32_000, np.float32), SPEC))
    assert silent.max() < np.median(real)
    assert np.ptp(silent) < 0.01


def test_a_corpus_without_clips_is_refused(tmp_path: Path) -> None:
    Manifest(SPEC, "x", "1", ()).save(tmp_path)
    with pytest.raises(CorpusError, match="0 clips in split train"):
        fit_whisper_lip_prior(tmp_path, LoudnessEncoder(), tmp_path / "lips.safetensors")
    assert not (tmp_path / "lips.safetensors").exists()
