"""A voice's sentences: silence around them, one rate, one loudness, and an end when cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import numpy as np
import pytest

from talkinghead.errors import UsageError
from talkinghead.speech.voice import Voice
from talkinghead.types import FloatArray

RATE = 22_050


class Humming:
    """Hums a tenth of a second for each letter; `size` samples at a time."""

    sample_rate = RATE

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self.given = 0

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        letters = sum(map(str.isalpha, text))
        hum = 0.1 * np.sin(np.arange(letters * RATE // 10) * 2 * np.pi * 220 / RATE)
        for start in range(0, len(hum), self._size):
            self.given += 1
            yield hum[start : start + self._size].astype(np.float32)


def _say(voice: Voice, *sentences: str) -> FloatArray:
    chunks = [chunk for sentence in sentences for chunk in voice.speak(sentence)]
    return np.concatenate([*chunks, np.zeros(0, np.float32)])


def test_silence_is_true_and_as_long_as_asked() -> None:
    said = _say(Voice(Humming(), lead_s=0.2, pause_s=0.5), "aaaaaaaaaa", "b" * 10)
    lead, hum, pause = RATE // 5, RATE, RATE // 2
    assert len(said) == 2 * (lead + hum + pause)
    for start in (0, lead + hum + pause):
        assert not said[start : start + lead].any()
        assert np.abs(said[start + lead : start + lead + hum]).max() > 0.05
        assert not said[start + lead + hum : start + lead + hum + pause].any()


@pytest.mark.parametrize("text", ["", "  ", "...", "\N{GRINNING FACE}"])
def test_nothing_to_say_is_nothing(text: str) -> None:
    assert not list(Voice(Humming()).speak(text))


@pytest.mark.parametrize("sample_rate", [16_000, 22_050, 24_000, 48_000])
def test_one_rate(sample_rate: int) -> None:
    voice = Voice(Humming(), sample_rate=sample_rate, lead_s=0, pause_s=0)
    said = _say(voice, "a" * 10)
    assert voice.sample_rate == sample_rate
    assert len(said) == pytest.approx(sample_rate, abs=32)
    spectrum = np.abs(np.fft.rfft(said))
    assert np.argmax(spectrum) * sample_rate / len(said) == pytest.approx(220, abs=1)


def test_chunks_change_nothing() -> None:
    sentences = ("a short one", "and one that is a good deal longer than it", "no")
    expected = _say(Voice(Humming(10**6), sample_rate=16_000), *sentences)
    for size in (777, 5000):
        cut = _say(Voice(Humming(size), sample_rate=16_000), *sentences)
        np.testing.assert_allclose(cut, expected, atol=1e-6)


def test_loudness_may_be_left_as_it_is() -> None:
    said = _say(Voice(Humming(), loudness_lufs=None, lead_s=0), "aaaa")
    assert np.abs(said).max() == pytest.approx(0.1, abs=1e-3)
    assert np.abs(_say(Voice(Humming(), loudness_lufs=-14.0), "a" * 20)).max() > 0.2


def test_cancelling_ends_at_the_next_piece() -> None:
    tts, cancel = Humming(), Event()
    spoken = Voice(tts, loudness_lufs=None).speak("a" * 100, cancel)
    next(spoken)
    cancel.set()
    assert len(list(spoken)) <= 1
    assert tts.given <= 3
    assert not list(Voice(Humming()).speak("a" * 100, cancel))


def test_what_is_no_number_is_silence() -> None:
    class Broken(Humming):
        def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
            for chunk in super().speak(text, cancel):
                chunk[::7] = np.nan
                yield chunk

    assert np.isfinite(_say(Voice(Broken()), "aaaaaaaaa")).all()


@pytest.mark.parametrize(
    "options", [{"lead_s": -1}, {"pause_s": 60}, {"sample_rate": 0}, {"loudness_lufs": 6}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Voice(Humming(), **options)  # type: ignore[arg-type]
