"""Loudness normalisation: target loudness, independence of chunking, and limited peaks."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pyloudnorm import Meter

from talkinghead.speech.loudness import LoudnessNormalizer

RATE = 16_000


def _speech(seed, duration_s, level=0.1):
    """Return noise with the level of four syllables per second."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(duration_s * RATE)) / RATE
    syllables = np.maximum(np.sin(2 * np.pi * 4 * times), 0.02)
    return (level * syllables * rng.standard_normal(len(times)).clip(-3, 3)).astype(np.float32)


def _normalize(normalizer, samples, chunks=None):
    return np.concatenate([*normalizer.normalize(chunks or [samples]), np.zeros(0, np.float32)])


def _lufs(samples):
    return float(Meter(RATE).integrated_loudness(samples.astype(np.float64)))


@pytest.mark.parametrize(("level", "target"), [(0.02, -19.0), (0.6, -23.0)])
def test_sentences_reach_the_target_loudness(level, target):
    normalizer = LoudnessNormalizer(RATE, target)
    spoken = [_normalize(normalizer, _speech(seed, 2.5, level)) for seed in range(4)]
    assert _lufs(spoken[0]) == pytest.approx(target, abs=1.5)
    assert _lufs(np.concatenate(spoken)) == pytest.approx(target, abs=0.5)


def test_normalised_speech_does_not_depend_on_chunks():
    sentences = [_speech(seed, duration_s) for seed, duration_s in enumerate((0.3, 0.8, 4.0, 1.3))]
    whole, chunked = LoudnessNormalizer(RATE), LoudnessNormalizer(RATE)
    for size, sentence in zip((1, 4999, 777, 10), sentences, strict=True):
        expected = _normalize(whole, sentence)
        assert len(expected) == len(sentence)
        chunks = np.split(sentence, range(size, len(sentence), size))
        np.testing.assert_array_equal(_normalize(chunked, sentence, chunks), expected)


def test_only_the_first_sentence_is_delayed():
    normalizer, taken = LoudnessNormalizer(RATE), 0

    def chunks():
        nonlocal taken
        for chunk in np.split(_speech(1, 3.0), 30):
            taken += 1
            yield chunk

    first = normalizer.normalize(chunks())
    next(first)
    assert 10 <= taken <= 11
    list(first)
    taken = 0
    next(normalizer.normalize(chunks()))
    assert taken == 1


def test_short_sentences_reach_the_target_loudness():
    noise = (0.02 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    long = _normalize(LoudnessNormalizer(RATE), noise)
    for duration_s in (0.05, 0.399):
        short = _normalize(LoudnessNormalizer(RATE), noise[: round(duration_s * RATE)])
        assert 20 * np.log10(np.std(short) / np.std(long)) == pytest.approx(0, abs=1)


def test_loudness_differences_between_sentences_are_kept():
    normalizer = LoudnessNormalizer(RATE)
    for seed in range(3):
        _normalize(normalizer, _speech(seed, 3.0, 0.1))
    quiet, loud = (_normalize(normalizer, _speech(9, 3.0, level)) for level in (0.05, 0.1))
    assert _lufs(loud) - _lufs(quiet) == pytest.approx(6, abs=1)


def test_silence_is_unchanged_and_noise_is_not_amplified_beyond_the_maximum_gain():
    normalizer, silence = LoudnessNormalizer(RATE), np.zeros(RATE, np.float32)
    assert not _normalize(normalizer, silence).any()
    assert not len(_normalize(normalizer, silence[:0]))
    hiss = _speech(4, 2.0, 0.002)
    normalized = _normalize(normalizer, hiss)
    np.testing.assert_allclose(normalized, 10 * hiss, rtol=1e-4)
    assert not _normalize(normalizer, silence).any()


def test_peaks_are_limited():
    clicks = _speech(5, 3.0, 0.02)
    clicks[::4000] = 1.0
    normalized = _normalize(LoudnessNormalizer(RATE, -14.0, peak_dbfs=-6.0), clicks)
    assert np.abs(normalized).max() <= 10 ** (-6 / 20) + 1e-6
    assert normalized.dtype == np.float32
    # Only samples near the ceiling are compressed.
    assert np.corrcoef(normalized[np.abs(clicks) < 0.1], clicks[np.abs(clicks) < 0.1])[0, 1] > 0.999


def test_concurrent_callers_get_their_own_measurements():
    normalizer = LoudnessNormalizer(RATE)
    sentences = [_speech(seed, 1.0, 0.01 * (seed + 1)) for seed in range(8)] * 10
    measured = [normalizer._blocks(sentence) for sentence in sentences]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(normalizer._blocks, sentences)) == measured
