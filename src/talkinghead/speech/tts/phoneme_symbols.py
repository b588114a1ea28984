"""Phonemes from the symbols and times that text-to-speech programs and models report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from talkinghead.predict.audio.phonemes import Phoneme
from talkinghead.types import FloatArray

# Symbols that lengthen or modify the phoneme before them.
_MODIFIERS = "ːˑʲʰˤ˞̧̩̪̯̃͡"
# Symbols without a sound: the padding between all phonemes, spaces and stress marks.
# Their time belongs to the next phoneme: in the audio, the time of a stop's own symbol begins about
# at the burst, and the closure is before it.
_SILENT = "_^ ˈˌ"
_PUNCTUATION = "!'(),-.:;?\"$#↓"
_MAX_LEAD_S = 0.06
_STOPS = tuple("pbtd\u0288\u0256c\u025fkg\u0261q\u0262\u0294\u0253\u0257")
# Maximum sample of the silence in which a stop is closed, and its maximum duration.
_QUIET, _MAX_CLOSURE_S = 1e-3, 0.1


def phonemes_of(
    symbols: Sequence[str], times_s: Sequence[float], max_lead_s: float = _MAX_LEAD_S
) -> list[Phoneme]:
    """Return the phonemes of symbols of the International Phonetic Alphabet (IPA).

    Args:
        symbols: phonemes, modifiers, stress marks, punctuation and padding [T], one letter each.
        times_s: times of their beginnings, and of the end of the last [T + 1].
        max_lead_s: maximum time in seconds by which a phoneme begins before its own symbol, if
            silent symbols precede it; the rest is a pause.
    """
    phonemes: list[Phoneme] = []
    previous_end_s = times_s[0] if times_s else 0.0
    for symbol, start_s, end_s in zip(symbols, times_s[:-1], times_s[1:], strict=True):
        if not symbol or symbol in _SILENT:
            continue
        if symbol in _MODIFIERS and phonemes:
            phonemes[-1] = Phoneme(phonemes[-1].symbol + symbol, phonemes[-1].start_s, end_s)
        elif symbol not in _PUNCTUATION:
            start_s = max(previous_end_s, start_s - max_lead_s)
            phonemes.append(Phoneme(symbol, start_s, end_s))
        previous_end_s = end_s
    return phonemes


def phonemes_of_program(
    rows: Sequence[tuple[float, str]], samples: FloatArray, sample_rate: int
) -> list[Phoneme]:
    """Return the phonemes that a program reports with the times of their beginnings.

    A stop begins with the silence before its burst, if the program counts it as a part of the
    phoneme before. Phonemes of several letters, such as diphthongs, are divided into equal parts.

    Args:
        rows: time in seconds and IPA symbol, in order; an empty symbol is a pause.
        samples: the speech, float32 [num_samples].
        sample_rate: its sample rate in Hz.
    """
    if not rows:
        return []
    duration_s = len(samples) / sample_rate
    starts_s = [
        _closure_start(time_s, samples, sample_rate) if symbol.startswith(_STOPS) else time_s
        for time_s, symbol in rows
    ]
    letters, times_s = list[str](), list[float]()
    for (_, symbol), start_s, end_s in zip(
        rows, starts_s, [*starts_s[1:], duration_s], strict=True
    ):
        parts = list(symbol) or ["_"]
        letters += parts
        times_s += np.linspace(start_s, end_s, len(parts), endpoint=False).tolist()
    return phonemes_of(letters, [*times_s, duration_s], max_lead_s=0.0)


def _closure_start(time_s: float, samples: FloatArray, sample_rate: int) -> float:
    """Return the beginning of the silence that ends at a time, or the time itself."""
    end = round(time_s * sample_rate)
    before = np.abs(samples[max(0, end - round(_MAX_CLOSURE_S * sample_rate)) : end])
    loud = np.flatnonzero(before > _QUIET)
    num_quiet = len(before) - 1 - int(loud[-1]) if len(loud) else len(before)
    return max(0.0, time_s - num_quiet / sample_rate)
