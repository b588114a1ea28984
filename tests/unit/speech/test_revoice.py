import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from talkinghead.data.dataset import ClipDataset
from talkinghead.data.manifest import Manifest
from talkinghead.data.storage import ClipFile, read_metadata
from talkinghead.data.synthetic import make_synthetic_corpus
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.audio import AudioFeatures
from talkinghead.features.time_warp import sample_frames, time_warp
from talkinghead.media.audio import Resampler, read_audio
from talkinghead.paths import DEMO_SPEECH
from talkinghead.speech.revoice import read_texts, revoice_corpus
from talkinghead.types import AVSpec

SPEC = AVSpec()
pytest.importorskip("faster_whisper")


class Slow:
    """Says the demonstration's sentence lower and slower, whatever it is given."""

    def __init__(self, factor):
        self.factor, self.sample_rate, self.spoken = factor, SPEC.sample_rate, []

    def speak(self, text, cancel=None):
        self.spoken.append(text)
        resampler = Resampler(SPEC.sample_rate, round(SPEC.sample_rate * self.factor))
        yield from resampler.push(sentence())
        yield from resampler.flush()


def sentence():
    return read_audio(DEMO_SPEECH, SPEC.sample_rate).samples[: 2 * SPEC.sample_rate]


@pytest.fixture
def corpus(tmp_path):
    """A clip in which the demonstration's first two seconds are said, after half a second."""
    make_synthetic_corpus(tmp_path, SPEC, num_speakers=1, clips_per_speaker=2, seconds=3.0)
    path = tmp_path / Manifest.load(tmp_path).clips[0].path
    rate = SPEC.sample_rate
    samples = np.pad(sentence(), (rate // 2, rate // 2))
    features = AudioFeatures(SPEC, prosody=True)(torch.from_numpy(samples)).numpy()
    tensors = load_file(path) | {
        "audio": np.rint(samples * 32767).astype(np.int16),
        "mel": np.ascontiguousarray(features[: SPEC.num_mels], np.float16),
        "prosody": np.ascontiguousarray(features[SPEC.num_mels :], np.float16),
    }
    save_file(tensors, path, read_metadata(path))
    return tmp_path


def texts(corpus, text="anything at all"):
    path = corpus / "texts.csv"
    path.write_text(f"clip,text\n{Manifest.load(corpus).clips[0].id}.mp4,{text}\n")
    return path


def clip_path(corpus):
    return corpus / Manifest.load(corpus).clips[0].path


def agreement(first, second):
    """Of two log-mels' loudness over time."""
    return np.corrcoef(first.mean(0), second.mean(0))[0, 1]


def test_another_voice_says_the_same_at_the_same_time(corpus):
    voices = {"slow": Slow(1.3), "quick": Slow(0.8)}
    assert revoice_corpus(corpus, texts(corpus), voices) == 1
    clip = ClipFile(clip_path(corpus))
    assert clip.voices == ["slow", "quick"]
    own = clip.mel()
    for voice in range(2):
        heard = clip.columns("mel", 0, own.shape[1], voice)
        assert heard.shape == own.shape
        assert agreement(own, heard) > 0.9
        assert np.abs(own - heard).mean() > 0.1  # It is lower or higher.
        pitch = clip.columns("prosody", 0, own.shape[1], voice)[0]
        assert np.ptp(np.rint(pitch[pitch != 0] * 1000)) > 0
    unwarped = AudioFeatures(SPEC)(torch.from_numpy(next(iter(Slow(1.3).speak("")))))
    assert agreement(own[:, : unwarped.shape[1]], unwarped[:, : own.shape[1]].numpy()) < 0.7


def test_done_clips_are_kept_and_other_voices_replace(corpus):
    voice = Slow(1.3)
    for _ in range(2):
        revoice_corpus(corpus, texts(corpus), {"slow": voice})
    assert voice.spoken == ["anything at all"]
    before = read_metadata(clip_path(corpus))
    revoice_corpus(corpus, texts(corpus), {"quick": Slow(0.8)})
    after = read_metadata(clip_path(corpus))
    assert json.loads(after.pop("voices")) == ["quick"]
    assert after == {k: v for k, v in before.items() if k != "voices"}


def test_a_dataset_lets_them_be_heard_in_place_of_the_own(corpus):
    revoice_corpus(corpus, texts(corpus), {"slow": Slow(1.3)})
    windows = {"num_frames": 5, "context_frames": 4, "lookahead_frames": 2}
    plain = ClipDataset(corpus, **windows)
    half = ClipDataset(corpus, **windows, revoiced_fraction=0.5)
    assert "mel_heard" not in plain[0]
    other = 0
    for index in range(40):
        item = half[index]
        assert torch.equal(item["mel"], plain[index]["mel"])
        other += not torch.equal(item["mel_heard"], item["mel"])
    assert 10 < other < 30


def test_a_clip_without_speech_is_skipped(corpus):
    path = clip_path(corpus)
    tensors = load_file(path)
    save_file(tensors | {"audio": np.zeros_like(tensors["audio"])}, path, read_metadata(path))
    with pytest.raises(CorpusError, match="no speech"):
        revoice_corpus(corpus, texts(corpus), {"slow": Slow(1.3)})
    assert ClipFile(path).voices == []


def test_bad_tables_and_no_voices(corpus):
    with pytest.raises(UsageError, match="voices is empty"):
        revoice_corpus(corpus, texts(corpus), {})
    with pytest.raises(CorpusError, match="no table of clips"):
        revoice_corpus(corpus, corpus / "missing.csv", {"slow": Slow(1.3)})
    (corpus / "other.csv").write_text("clip,text\nnobody/nothing,hello\n")
    with pytest.raises(CorpusError, match="has a text for none"):
        read_texts(corpus / "other.csv", ["a/b"])


def test_time_warp_finds_a_known_warp():
    mel = AudioFeatures(SPEC)(torch.from_numpy(sentence()))[:, 20:140]
    steps = np.random.default_rng(0).uniform(0.6, 1.6, 200).cumsum()
    known = np.concatenate([[0.0], steps[steps < 118], [119.0]]).astype(np.float32)
    found = time_warp(mel, sample_frames(mel, known), SPEC)
    assert np.all(np.diff(found) >= 0)
    error = np.abs(np.interp(found, np.arange(len(known)), known) - np.arange(120))
    # Within a sound that stays as it is nothing tells where one is.
    assert np.median(error) < 1
