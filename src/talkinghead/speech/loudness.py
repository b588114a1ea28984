"""Streaming loudness normalisation of a voice.

Paper: EBU R 128, "Loudness normalisation and permitted maximum level of audio signals", with
ITU-R BS.1770, whose gated blocks pyloudnorm measures.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from threading import Lock

import numpy as np

from talkinghead.errors import DependencyError, UsageError
from talkinghead.types import FloatArray

DEFAULT_LUFS = -19.0
# Loudness is measured in overlapping blocks of 0.4 s. The blocks of the first second of speech are
# sufficient, and those of the last 30 s are kept.
_BLOCK_S, _MEASURED_S, _ENOUGH_BLOCKS, _MAX_BLOCKS = 0.4, 1.0, 7, 300
# Absolute and relative gates of BS.1770: quieter blocks are not counted as speech.
_SILENCE_LUFS, _RELATIVE_GATE_DB = -70.0, 10.0
# Samples above this amplitude are counted as speech.
_ONSET_AMPLITUDE = 0.001
# Maximum gain, because larger gains would amplify noise.
_MAX_GAIN_DB = 20.0
# Samples below this fraction of the maximum peak are not compressed.
_KNEE = 0.7


class LoudnessNormalizer:
    """A loudness normaliser for sentences, with one gain per sentence and limited peaks.

    The gain follows from the mean of R 128's gated blocks over the earlier sentences, so a sentence
    is not delayed. Until one second of speech has been measured, the first second of a sentence is
    buffered and measured too. Loud sentences stay louder than quiet ones, and the output does not
    depend on how the audio is divided into chunks.

    Safe for concurrent callers, which share the measured loudness: use one normaliser per voice.

    The default of -19 LUFS is the -16 recommended for streaming (AES TD1004), for a mono signal:
    two loudspeakers play it 3 dB louder than it measures. It is close to the training speech of the
    packaged weights. Broadcast uses -23.

    Args:
        sample_rate: Sample rate in Hz.
        target_lufs: Target loudness in LUFS.
        peak_dbfs: Maximum sample peak in dB relative to full scale; higher samples are compressed
            smoothly, each one independently.

    Raises:
        DependencyError: pyloudnorm is missing.
        UsageError: The target or the peak is above full scale, or not a number.
    """

    def __init__(
        self, sample_rate: int, target_lufs: float = DEFAULT_LUFS, peak_dbfs: float = -1.0
    ) -> None:
        if not (_SILENCE_LUFS < target_lufs <= 0 and -60 < peak_dbfs <= 0):
            raise UsageError(
                f"loudness {target_lufs} LUFS, peak {peak_dbfs} dBFS: expected at most 0, "
                f"and above {_SILENCE_LUFS:g} LUFS and -60 dBFS, such as {DEFAULT_LUFS} and -1"
            )
        try:
            from pyloudnorm import Meter
        except ImportError as error:
            raise DependencyError(
                "loudness needs the package pyloudnorm: pip install 'talkinghead[speech]' (or "
                "[offline]), or leave the loudness unchanged with loudness_lufs=null"
            ) from error
        self._sample_rate, self._target_lufs = sample_rate, target_lufs
        self._ceiling = 10 ** (peak_dbfs / 20)
        self._meter = Meter(sample_rate, block_size=_BLOCK_S)
        self._known_blocks: deque[float] = deque(maxlen=_MAX_BLOCKS)
        # Protects the blocks and the meter, which is not thread-safe.
        self._lock = Lock()

    def normalize(self, chunks: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Yield the chunks of one sentence, mono float32 in [-1, 1], at the target loudness."""
        chunks = iter(chunks)
        new_blocks: list[float] = []
        if len(self._known_blocks) < _ENOUGH_BLOCKS:
            head, new_blocks = self._first_second(chunks)
            chunks = chain([head] if len(head) else [], chunks)
        gain = self._gain(new_blocks)
        kept, num_left = [], _MAX_BLOCKS * self._sample_rate // 10
        for chunk in chunks:
            kept.append(chunk[:num_left])
            num_left -= len(kept[-1])
            yield _limit(chunk * gain, self._ceiling)
        blocks = self._blocks(np.concatenate(kept)) if kept else []
        with self._lock:
            self._known_blocks.extend(blocks)

    def _first_second(self, chunks: Iterator[FloatArray]) -> tuple[FloatArray, list[float]]:
        """Buffer chunks up to one second of speech; return the samples and the block loudness."""
        head, end = np.zeros(0, np.float32), None
        for chunk in chunks:
            head = np.concatenate([head, chunk])
            onsets = np.flatnonzero(np.abs(head) > _ONSET_AMPLITUDE)
            end = onsets[0] + round(_MEASURED_S * self._sample_rate) if len(onsets) else None
            if end is not None and len(head) >= end:
                break
        return head, self._blocks(head[:end])

    def _blocks(self, samples: FloatArray) -> list[float]:
        """Return the LUFS of each block that is not silent; repeat audio shorter than one block."""
        if not samples.any():
            return []
        min_samples = math.ceil(_BLOCK_S * self._sample_rate)
        padded = np.resize(samples, max(len(samples), min_samples)).astype(np.float64)
        with self._lock:
            self._meter.integrated_loudness(padded)
            return [block for block in self._meter.blockwise_loudness if block > _SILENCE_LUFS]

    def _gain(self, new_blocks: list[float]) -> np.float32:
        """Return the gain that converts the measured loudness to the target, or 1 for silence."""
        with self._lock:
            blocks = np.array([*self._known_blocks, *new_blocks])
        if not len(blocks):
            return np.float32(1)
        loud = blocks[blocks > _mean_db(blocks) - _RELATIVE_GATE_DB]
        gain_db = np.clip(self._target_lufs - _mean_db(loud), -_MAX_GAIN_DB, _MAX_GAIN_DB)
        return np.float32(10 ** (gain_db / 20))


def _mean_db(levels: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(10 ** (levels / 10))))


def _limit(samples: FloatArray, ceiling: float) -> FloatArray:
    """Limit peaks to the ceiling: samples below the knee are unchanged, others are compressed."""
    knee = _KNEE * ceiling
    room, excess = ceiling - knee, np.abs(samples) - knee
    limited = np.copysign(knee + room * np.tanh(excess / room), samples)
    return np.where(excess > 0, limited, samples).astype(np.float32)
