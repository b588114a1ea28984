"""One loudness for a voice, whatever the chunks, and bounded peaks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pyloudnorm import Meter
from scipy.signal import resample_poly

from talkinghead.errors import DependencyError, UsageError
from talkinghead.speech.loudness import Loudness
from talkinghead.types import FloatArray

RATE = 16_000


def _speech(seed: int, duration_s: float, level: float = 0.1) -> FloatArray:
    """Noise in syllables, four a second: its level varies as speech's does."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(duration_s * RATE)) / RATE
    syllables = np.maximum(np.sin(2 * np.pi * 4 * times), 0.02)
    return (level * syllables * rng.standard_normal(len(times)).clip(-3, 3)).astype(np.float32)


def _cut(samples: FloatArray, seed: int) -> Iterator[FloatArray]:
    """Chunks of 1 to 5000 samples."""
    rng, start = np.random.default_rng(seed), 0
    while start < len(samples):
        end = start + int(rng.integers(1, 5000))
        yield samples[start:end]
        start = end


def _say(loudness: Loudness, samples: FloatArray, seed: int | None = None) -> FloatArray:
    chunks = [samples] if seed is None else _cut(samples, seed)
    return np.concatenate([*loudness.sentence(chunks), np.zeros(0, np.float32)])


def _lufs(samples: FloatArray) -> float:
    return float(Meter(RATE).integrated_loudness(samples.astype(np.float64)))


@pytest.mark.parametrize("level", [0.02, 0.1, 0.6])
@pytest.mark.parametrize("target", [-19.0, -23.0])
def test_voice_comes_to_the_target(level: float, target: float) -> None:
    loudness = Loudness(RATE, target)
    spoken = [_say(loudness, _speech(seed, 2.5, level)) for seed in range(4)]
    assert _lufs(spoken[0]) == pytest.approx(target, abs=1.5)
    assert _lufs(np.concatenate(spoken)) == pytest.approx(target, abs=0.5)


def test_chunks_change_nothing() -> None:
    sentences = [_speech(seed, duration_s) for seed, duration_s in enumerate((0.3, 0.8, 4.0, 1.3))]
    whole, cut, finer = Loudness(RATE), Loudness(RATE), Loudness(RATE)
    for number, sentence in enumerate(sentences):
        expected = _say(whole, sentence)
        assert len(expected) == len(sentence)
        np.testing.assert_array_equal(_say(cut, sentence, number), expected)
        np.testing.assert_array_equal(_say(finer, sentence, number + 100), expected)


def test_first_sentence_waits_for_a_second_and_later_ones_do_not() -> None:
    loudness, taken = Loudness(RATE), 0

    def chunks() -> Iterator[FloatArray]:
        nonlocal taken
        for chunk in np.split(_speech(1, 3.0), 30):
            taken += 1
            yield chunk

    first = loudness.sentence(chunks())
    next(first)
    assert 10 <= taken <= 11
    list(first)
    taken = 0
    next(loudness.sentence(chunks()))
    assert taken == 1


def test_one_gain_within_a_sentence() -> None:
    samples = _speech(2, 2.0, 0.05)
    said = _say(Loudness(RATE), samples)
    quiet = np.abs(said) < 0.5
    gains = said[quiet & (samples != 0)] / samples[quiet & (samples != 0)]
    assert np.ptp(gains) < 1e-4


@pytest.mark.parametrize("duration_s", [0.05, 0.2, 0.399])
def test_sentences_shorter_than_a_block_are_as_loud_as_long_ones(duration_s: float) -> None:
    rng = np.random.default_rng(0)
    noise = (0.02 * rng.standard_normal(round(2 * RATE))).astype(np.float32)
    short = _say(Loudness(RATE), noise[: round(duration_s * RATE)])
    long = _say(Loudness(RATE), noise)
    assert 20 * np.log10(np.std(short) / np.std(long)) == pytest.approx(0, abs=1)


def test_loud_sentence_stays_louder_than_a_quiet_one() -> None:
    loudness = Loudness(RATE)
    for seed in range(3):
        _say(loudness, _speech(seed, 3.0, 0.1))
    quiet, loud = (_say(loudness, _speech(9, 3.0, level)) for level in (0.05, 0.1))
    assert _lufs(loud) - _lufs(quiet) == pytest.approx(6, abs=1)


def test_silence_stays_silence() -> None:
    loudness = Loudness(RATE)
    silence = np.zeros(RATE, np.float32)
    assert not _say(loudness, silence).any()
    assert not len(_say(loudness, silence[:0]))
    said = _say(loudness, _speech(3, 2.0))
    assert _lufs(said) == pytest.approx(-19, abs=1.5)
    assert not _say(loudness, silence).any()


def test_what_is_no_voice_is_not_made_one() -> None:
    hiss = _speech(4, 2.0, 1e-4)
    said = _say(Loudness(RATE), hiss)
    assert np.abs(said).max() <= 10.001 * np.abs(hiss).max()


@pytest.mark.parametrize("peak_dbfs", [-1.0, -6.0])
def test_peaks_are_bounded(peak_dbfs: float) -> None:
    clicks = _speech(5, 3.0, 0.02)
    clicks[::4000] = 1.0
    said = _say(Loudness(RATE, -14.0, peak_dbfs), clicks)
    assert np.abs(said).max() <= 10 ** (peak_dbfs / 20) + 1e-6
    assert said.dtype == np.float32
    # Quieter samples are only louder: the ceiling bends what is near it alone.
    assert np.corrcoef(said[np.abs(clicks) < 0.1], clicks[np.abs(clicks) < 0.1])[0, 1] > 0.999


def test_true_peaks_are_bounded_too() -> None:
    said = _say(Loudness(RATE), _speech(6, 3.0, 0.3))
    assert np.abs(resample_poly(said.astype(np.float64), 4, 1)).max() < 1


@pytest.mark.parametrize("options", [{"target_lufs": 3}, {"peak_dbfs": 1}, {"target_lufs": -90}])
def test_impossible_targets_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected at most 0"):
        Loudness(RATE, **options)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyloudnorm", None)
    with pytest.raises(DependencyError, match=r"talkinghead\[speech\].*loudness_lufs=null"):
        Loudness(RATE)
