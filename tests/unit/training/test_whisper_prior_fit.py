"""Fitting of the map of the Whisper lip prior."""

import numpy as np
import pytest
import torch
from helpers.late_clips import SPEC, make_late_corpus

from talkinghead.data.clip_file import ClipFile
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.predict.audio.lip_priors.lip_prior import predict_lip_motion
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior
from talkinghead.training import whisper_prior_fit
from talkinghead.training.whisper_prior_fit import (
    FitClip,
    PriorFitOptions,
    fit_whisper_lip_prior,
)


class LevelEncoder:
    """A speech encoder whose features are the level, and its square, of 20 ms."""

    def encode(self, clips):
        frames = clips[:, : clips.shape[1] // 320 * 320].reshape(len(clips), -1, 320)
        level = np.abs(frames).mean(2)
        return np.stack([level, level**2], 2).astype(np.float32)


def opening(motion):
    return motion[:, 17:20, 1].mean(1) - motion[:, 13:16, 1].mean(1)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    for name, late in (("first", 0), ("second", 3)):
        make_late_corpus(folder / name, late, clips_per_speaker=3, seconds=4)
    return folder / "first", folder / "second"


def test_map_of_two_corpora_predicts_motion_and_finds_late_audio(corpora, tmp_path):
    path, encoder = tmp_path / "map.safetensors", LevelEncoder()
    options = PriorFitOptions(corpus_weights=(0.7, 0.3))
    offsets = fit_whisper_lip_prior(corpora, encoder, path, options)
    assert set(offsets) == {(1, "cartoon0"), (1, "cartoon1")}
    for offset in offsets.values():
        assert offset.frames == pytest.approx(3, abs=0.5)
    lip_prior = WhisperLipPrior(encoder, path, speech_only=False)
    for clip in sorted((corpora[0] / "clips").rglob("clip2.safetensors")):
        file = ClipFile(clip)
        samples = file.tensor("audio").astype(np.float32) / 32767
        predicted = opening(predict_lip_motion(lip_prior, samples, SPEC)[: len(file)])
        real = opening(lip_motion(file.tensor("lips")))
        assert np.corrcoef(predicted, real)[0, 1] > 0.8


def test_speakers_of_different_corpora_with_the_same_name_are_kept_apart():
    rng = np.random.default_rng(0)
    inputs, motion = rng.normal(size=(50, 5)), rng.normal(size=(50, 40)).astype(np.float32)
    clips = [
        FitClip(number, "anna", "anna", inputs.astype(np.float16), motion + 10 * number)
        for number in (0, 1)
    ]
    speakers = whisper_prior_fit._speakers(clips, (0.2, 0.8), 0.4)
    assert [speaker.weight for speaker in speakers.values()] == pytest.approx([0.2, 0.8])
    means = [float(speaker.motion_mean.mean()) for speaker in speakers.values()]
    assert means == pytest.approx([0, 10], abs=0.1)
    weight = torch.from_numpy(np.zeros((5, 40), np.float32))
    offsets = whisper_prior_fit._measure_offsets(clips, (weight, torch.zeros(40)))
    assert list(offsets) == [(1, "anna")]


def test_wrong_number_of_weights_is_refused(corpora, tmp_path):
    options = PriorFitOptions(corpus_weights=(1.0,))
    with pytest.raises(UsageError, match="1 weights for 2 corpora"):
        fit_whisper_lip_prior(corpora, LevelEncoder(), tmp_path / "map", options)
    with pytest.raises(CorpusError):
        fit_whisper_lip_prior([tmp_path], LevelEncoder(), tmp_path / "map")
