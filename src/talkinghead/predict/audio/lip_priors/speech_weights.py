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
from talkinghead.predict.source.head.head_geometry import smooth_step
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
        weights = np.ones((len(windows), num_frames), np.float32)
        if self._session is None and not self._is_missing:
            try:
                self._session = load_session()
            except (DependencyError, ImportError) as error:
                self._is_missing = True
                log.info("the lips also follow music and noise: %s", error)
        if self._is_missing:
            return weights
        key = hashlib.blake2b(np.ascontiguousarray(windows).data).digest()
        last = self._last  # Another thread may replace it.
        if last is not None and last[0] == key:
            return last[1].copy()
        detected_s = min(_DETECTED_S, self._past_s)
        before = int((self._past_s - detected_s) * _SAMPLE_RATE)
        for row, window in zip(weights, windows, strict=True):
            _, probabilities = SileroVAD(self._session).push(window[before:])
            # Times of the middles of the detection windows, from the start of the block.
            places = (np.arange(len(probabilities)) + 0.5) * WINDOW_SIZE / _SAMPLE_RATE
            places -= float(detected_s)
            for frame in range(num_frames):
                distance_s = places - (frame + 0.5) / _FPS
                near = (distance_s >= -_HELD_S) & (distance_s <= float(self._ahead_s))
                peak = float(probabilities[near].max(initial=0))
                speech = float(smooth_step((peak - _NO_SPEECH) / (_SPEECH - _NO_SPEECH)))
                row[frame] = max(speech, 1 - self._loudness(window, frame))
        self._last = key, weights.copy()
        return weights

    def _loudness(self, window: FloatArray, frame: int) -> float:
        """Return 0 where the audio around a frame of the block is silent, up to 1 where loud."""
        middle_s = float(self._past_s) + (frame + 0.5) / _FPS
        first, last = ((middle_s + offset_s) * _SAMPLE_RATE for offset_s in (-_LEVEL_S, _LEVEL_S))
        near = window[int(first) : int(last)]
        level = float(np.sqrt(np.mean(near * near)))
        return float(smooth_step((level - _SILENT) / (_LOUD - _SILENT)))
