"""Weights of speech in the windows of a lip prior, so that music and noise do not move the lips.

Shape suffixes: N windows, S samples, T video frames.
"""

from __future__ import annotations

import hashlib
import logging
from fractions import Fraction
from typing import Any

import numpy as np

from talkinghead.errors import DependencyError
from talkinghead.predict.source.head.head_geometry import Floats, smooth_step
from talkinghead.runtime.silero_vad import WINDOW_SIZE, SileroVAD, load_session
from talkinghead.types import FloatArray

log = logging.getLogger(__name__)

_SAMPLE_RATE, _FPS = 16_000, 25
# Maximum duration of the audio before a block that the speech detector processes, and time after
# speech for which frames still count as speech.
_DETECTED_S, _HELD_S = Fraction(1), 0.6
# Probabilities of speech at which the weight of a frame is 0 and 1.
_NO_SPEECH, _SPEECH = 0.05, 0.25
# Levels (root mean square) of audio without speech at which the weight is 1 and 0. Quiet pauses
# keep the predicted motion, because without it r on GRID falls from 0.87 to 0.83.
_SILENT, _LOUD = 0.01, 0.04
_LEVEL_S = 0.2


class SpeechWeights:
    """Weights of the frames of blocks: 0 where there is sound but no speech, 1 elsewhere.

    A frame counts as speech if there is speech up to 0.6 s before it or within the look-ahead
    after it, so that the mouth follows speech to its end. Without the detector, all weights are 1.

    Args:
        past_s, block_s, ahead_s: the spans of the lip prior (see `LipPrior`).
    """

    def __init__(self, past_s: Fraction, block_s: Fraction, ahead_s: Fraction) -> None:
        self._past_s, self._block_s, self._ahead_s = past_s, block_s, ahead_s
        self._session: Any = None
        # A stream and its lip prior ask for the same weights, one after the other.
        self._last: tuple[bytes, FloatArray] | None = None
        self._is_missing = False

    def of_blocks(self, windows: FloatArray) -> FloatArray:
        """Return the weights float32 [N, T] of the frames of blocks.

        Args:
            windows: float32 [N, S]; see `LipPrior.predict_motion`.
        """
        num_frames = int(self._block_s * _FPS)
        if not self._load():
            return np.ones((len(windows), num_frames), np.float32)
        key = hashlib.blake2b(np.ascontiguousarray(windows).data).digest()
        last = self._last  # Another thread may replace it.
        if last is not None and last[0] == key:
            return last[1].copy()
        detected_s = min(_DETECTED_S, self._past_s)
        before = int((self._past_s - detected_s) * _SAMPLE_RATE)
        rows = []
        for window in windows:
            _, probabilities = SileroVAD(self._session).push(window[before:])
            frames = np.arange(num_frames)
            levels = _levels(window, float(self._past_s) + (frames + 0.5) / _FPS)
            middles_s = float(detected_s) + (frames + 0.5) / _FPS
            rows.append(_weights(probabilities, middles_s, levels, float(self._ahead_s)))
        weights = np.stack(rows)
        self._last = key, weights.copy()
        return weights

    def start_stream(self, known_s: Fraction | None = None) -> SpeechWeightStream | None:
        """Return the weights of a stream; None without the detector.

        Args:
            known_s: time after the middle of a frame up to which the audio is known, if that is
                less than the look-ahead.
        """
        ahead_s = self._ahead_s if known_s is None else min(self._ahead_s, known_s)
        return SpeechWeightStream(self._session, ahead_s) if self._load() else None

    def _load(self) -> bool:
        """Load the detector, and return whether it is available."""
        if self._session is None and not self._is_missing:
            try:
                self._session = load_session()
            except (DependencyError, ImportError) as error:
                self._is_missing = True
                log.info("the lips also follow music and noise: %s", error)
        return not self._is_missing


class SpeechWeightStream:
    """Weights of the frames of a stream; the chunks of the stream change nothing.

    Args:
        session: the loaded speech detector.
        ahead_s: look-ahead after the middle of a frame.
    """

    def __init__(self, session: Any, ahead_s: Fraction) -> None:
        self._detector = SileroVAD(session)
        # A detection window must end within the look-ahead.
        self._ahead_s = float(ahead_s) - WINDOW_SIZE / _SAMPLE_RATE / 2
        self._level_ahead_s = min(_LEVEL_S, float(ahead_s))
        self._probabilities = np.zeros(0, np.float32)
        margin = int(_LEVEL_S * _SAMPLE_RATE)
        self._samples = np.zeros(margin, np.float32)
        self._first_sample, self._first_window = -margin, 0

    def push(self, samples: FloatArray) -> None:
        """Append audio, float32 [num_samples] in [-1, 1]."""
        _, probabilities = self._detector.push(samples)
        self._probabilities = np.concatenate([self._probabilities, probabilities])
        self._samples = np.concatenate([self._samples, samples])

    def take(self, first: int, stop: int) -> FloatArray:
        """Return the weights float32 [stop - first] of frames whose look-ahead has been pushed.

        Audio that is needed for earlier frames only is dropped.
        """
        middles_s = (np.arange(first, stop) + 0.5) / _FPS
        places_s = middles_s - self._first_sample / _SAMPLE_RATE
        levels = _levels(self._samples, places_s, self._level_ahead_s)
        start_s = self._first_window * WINDOW_SIZE / _SAMPLE_RATE
        weights = _weights(self._probabilities, middles_s - start_s, levels, self._ahead_s)
        next_s = (stop + 0.5) / _FPS
        unused = int((next_s - _LEVEL_S) * _SAMPLE_RATE) - self._first_sample
        self._samples, self._first_sample = self._samples[unused:], self._first_sample + unused
        unused = int((next_s - _HELD_S) * _SAMPLE_RATE / WINDOW_SIZE) - 1 - self._first_window
        if unused > 0:
            self._probabilities = self._probabilities[unused:]
            self._first_window += unused
        return weights


def _weights(
    probabilities: FloatArray, middles_s: Floats, levels: FloatArray, ahead_s: float
) -> FloatArray:
    """Return the weights of frames from the probabilities of speech in detection windows.

    Args:
        probabilities: float32 [W], of consecutive windows.
        middles_s: middles [T] of the frames, from the start of the first window.
        levels: root mean squares [T] of the audio around the frames.
        ahead_s: look-ahead from the middle of a frame to the middle of a window.
    """
    places_s = (np.arange(len(probabilities)) + 0.5) * WINDOW_SIZE / _SAMPLE_RATE
    distance_s = places_s - middles_s[:, None]
    is_near = (distance_s >= -_HELD_S) & (distance_s <= ahead_s)
    peaks = np.where(is_near, probabilities, 0).max(1, initial=0)
    speech = smooth_step((peaks - _NO_SPEECH) / (_SPEECH - _NO_SPEECH))
    loudness = smooth_step((levels - _SILENT) / (_LOUD - _SILENT))
    return np.maximum(speech, 1 - loudness).astype(np.float32)


def _levels(samples: FloatArray, middles_s: Floats, ahead_s: float = _LEVEL_S) -> FloatArray:
    """Return the root mean squares [T] of audio around times [T]."""
    first, last = (
        ((middles_s + offset_s) * _SAMPLE_RATE).round().astype(int)
        for offset_s in (-_LEVEL_S, ahead_s)
    )
    pieces = [samples[a:b] for a, b in zip(first, last, strict=True)]
    return np.sqrt([np.mean(piece * piece) for piece in pieces], dtype=np.float32)
