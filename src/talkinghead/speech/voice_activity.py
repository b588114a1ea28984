"""Voice activity detection with Silero VAD, and splitting of a stream into utterances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile
from threading import Event
from typing import NamedTuple

import numpy as np

from talkinghead.media.audio_decoding import Resampler
from talkinghead.media.audio_samples import to_mono_float32
from talkinghead.runtime.silero_vad import SAMPLE_RATE, WINDOW_SIZE, SileroVAD
from talkinghead.types import FloatArray

__all__ = ["SAMPLE_RATE", "WINDOW_SIZE", "Utterance", "speech_probabilities", "stream_utterances"]

# Hysteresis: speech starts above the first probability and ends below the second.
_START_THRESHOLD, _END_THRESHOLD = 0.5, 0.35
# Silence kept before and after an utterance. Utterances with less speech than the minimum are
# discarded as noise.
_PADDING_S, _MIN_SPEECH_S = 0.2, 0.1


class Utterance(NamedTuple):
    """Speech between two silences, float32 [num_samples] at 16 kHz, and the start time."""

    samples: FloatArray
    start_s: float


def speech_probabilities(chunks: Iterable[FloatArray]) -> Iterator[tuple[FloatArray, float]]:
    """Yield each 32 ms window of a stream with the probability that the window contains speech.

    The model is Silero VAD (MIT), as distributed with faster-whisper.

    Args:
        chunks: float32 [num_samples] in [-1, 1] at 16 kHz, of any length.

    Yields:
        float32 [512], the last one padded with zeros, and a probability in [0, 1].

    Raises:
        DependencyError: faster-whisper is not installed, or has another detector.
    """
    detector = SileroVAD()
    for chunk in chunks:
        windows, probabilities = detector.push(chunk)
        yield from zip(windows, probabilities.tolist(), strict=True)
    if detector.num_pending:
        windows, probabilities = detector.push(
            np.zeros(WINDOW_SIZE - detector.num_pending, np.float32)
        )
        yield from zip(windows, probabilities.tolist(), strict=True)


def stream_utterances(
    chunks: Iterable[FloatArray],
    sample_rate: int,
    min_silence_s: float = 0.5,
    max_s: float = 28.0,
    cancel: Event | None = None,
) -> Iterator[Utterance]:
    """Split a stream at silences, and yield each utterance when it ends; memory is bounded.

    Args:
        chunks: float32 [num_samples] in [-1, 1], mono, of any length, or other samples that
            `to_mono_float32` accepts; NaN counts as silence.
        sample_rate: Sample rate of the chunks in Hz.
        min_silence_s: Silence in seconds that ends an utterance.
        max_s: Maximum length in seconds; a longer utterance is split in its second half, at the
            lowest probability of speech.
        cancel: Ends the iteration early.

    Raises:
        DependencyError: See `speech_probabilities`.
    """
    cancel = cancel or Event()
    mono = map(to_mono_float32, takewhile(lambda _: not cancel.is_set(), chunks))
    windows = speech_probabilities(Resampler(sample_rate, SAMPLE_RATE).stream(mono))
    for utterance in _split(windows, _num_windows(min_silence_s), _num_windows(max_s)):
        if not cancel.is_set():
            yield utterance


def _num_windows(duration_s: float) -> int:
    return max(1, round(duration_s * SAMPLE_RATE / WINDOW_SIZE))


def _split(
    stream: Iterable[tuple[FloatArray, float]], min_silence: int, max_windows: int
) -> Iterator[Utterance]:
    """Yield utterances from windows with their probabilities of speech; see `stream_utterances`.

    `min_silence` and `max_windows` are numbers of windows.
    """
    padding, min_speech = _num_windows(_PADDING_S), _num_windows(_MIN_SPEECH_S)
    windows: list[FloatArray] = []
    probabilities: list[float] = []
    first_window, num_silent, is_speech = 0, 0, False

    def take(count: int) -> Iterator[Utterance]:
        """Remove the first windows; if they contain enough speech, yield them as an utterance."""
        nonlocal first_window
        num_speech = sum(p >= _START_THRESHOLD for p in probabilities[:count])
        if num_speech >= min_speech:
            start_s = first_window * WINDOW_SIZE / SAMPLE_RATE
            yield Utterance(np.concatenate(windows[:count]), start_s)
        del windows[:count], probabilities[:count]
        first_window += count

    for window, p in stream:
        windows.append(window)
        probabilities.append(p)
        threshold = _END_THRESHOLD if is_speech else _START_THRESHOLD
        num_silent = 0 if p >= threshold else num_silent + 1
        is_speech = is_speech or num_silent == 0
        if not is_speech:
            yield from take(max(0, len(windows) - padding))
        elif num_silent >= min_silence:
            yield from take(len(windows) - max(0, num_silent - padding))
            is_speech = False
        elif len(windows) >= max_windows:
            half = len(windows) // 2
            yield from take(half + int(np.argmin(probabilities[half:])))
            num_silent = min(num_silent, len(windows))
    if is_speech:
        yield from take(len(windows) - max(0, num_silent - padding))
