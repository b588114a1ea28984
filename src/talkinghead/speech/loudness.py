"""One loudness for a voice, measured by EBU R 128 while it speaks.

Paper: EBU R 128, "Loudness normalisation and permitted maximum level of audio signals", with
ITU-R BS.1770, whose gated blocks pyloudnorm measures.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np

from talkinghead.errors import DependencyError, UsageError
from talkinghead.types import FloatArray

DEFAULT_LUFS = -19.0
# A voice is known after a second's blocks of 0.4 s, one each 0.1 s; half a minute of them is kept.
_BLOCK_S, _MEASURED_S, _ENOUGH_BLOCKS, _KEPT_BLOCKS = 0.4, 1.0, 7, 300
# BS.1770's gates: blocks quieter than the first, or than the mean by the second, are not speech.
_SILENCE_LUFS, _RELATIVE_GATE_DB = -70.0, 10.0
# Speech begins with the first sample that is louder.
_QUIET = 0.001
# What needs more than this is no voice.
_MOST_DB = 20.0
# Up to this share of the ceiling samples are left as they are.
_KNEE = 0.7


class Loudness:
    """Brings a voice's sentences to one loudness, each by one gain, and bounds their peaks.

    The gain of a sentence comes from what was spoken before it, by the mean of R 128's gated
    blocks, so a sentence is not delayed; only until a second of the voice has been heard is the
    first second of a sentence waited for, and counted too. So the voice settles within a sentence
    or two, a loud sentence stays louder than a quiet one, and however a sentence's sound is cut
    into chunks, the same samples come out.

    The default of -19 LUFS is the -16 that is asked of what is streamed (AES TD1004), for a mono
    signal: played by two speakers it sounds 3 dB louder than it measures. It is also near the
    speech that the packaged weights were trained with. Broadcast's is -23.

    Args:
        sample_rate: of the samples, in Hz.
        target_lufs: the loudness.
        peak_dbfs: no sample is beyond it, in dB of full scale: what would be is bent smoothly, each
            sample by itself.

    Raises:
        DependencyError: pyloudnorm is missing.
        UsageError: the target or the peak is above full scale, or not a number.
    """

    def __init__(
        self, sample_rate: int, target_lufs: float = DEFAULT_LUFS, peak_dbfs: float = -1.0
    ) -> None:
        if not (_SILENCE_LUFS < target_lufs <= 0 and -60 < peak_dbfs <= 0):
            raise UsageError(
                f"a loudness of {target_lufs} LUFS with peaks at {peak_dbfs} dBFS: expected at "
                f"most 0 of both, such as {DEFAULT_LUFS} and -1"
            )
        try:
            from pyloudnorm import Meter
        except ImportError as error:
            raise DependencyError(
                "loudness needs the package pyloudnorm: pip install 'talkinghead[speech]' (or "
                "[offline]), or leave the loudness as it is with loudness_lufs=null"
            ) from error
        self._sample_rate, self._target_lufs = sample_rate, target_lufs
        self._ceiling = 10 ** (peak_dbfs / 20)
        self._meter = Meter(sample_rate, block_size=_BLOCK_S)
        self._heard: deque[float] = deque(maxlen=_KEPT_BLOCKS)

    def sentence(self, chunks: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """A sentence's sound at the target: float32 [num_samples], piece by piece.

        Args:
            chunks: float32 [num_samples] in [-1, 1], mono, of any length.
        """
        chunks = iter(chunks)
        measured: list[float] = []
        if len(self._heard) < _ENOUGH_BLOCKS:
            head, measured = self._head(chunks)
            chunks = chain([head] if len(head) else [], chunks)
        gain = self._gain(measured)
        kept, most = [], _KEPT_BLOCKS * self._sample_rate // 10
        for chunk in chunks:
            kept.append(chunk[:most])
            most -= len(kept[-1])
            yield _bend(chunk * gain, self._ceiling)
        self._heard.extend(self._blocks(np.concatenate(kept)) if kept else [])

    def _head(self, chunks: Iterator[FloatArray]) -> tuple[FloatArray, list[float]]:
        """As many chunks as hold a second of speech, and the loudness of exactly that second."""
        held, num_samples = np.zeros(0, np.float32), round(_MEASURED_S * self._sample_rate)
        end = None
        for chunk in chunks:
            held = np.concatenate([held, chunk])
            end = next(iter(np.flatnonzero(np.abs(held) > _QUIET) + num_samples), None)
            if end is not None and len(held) >= end:
                break
        return held, self._blocks(held[:end])

    def _blocks(self, samples: FloatArray) -> list[float]:
        """LUFS of each block that is not silent. What is shorter than a block is repeated."""
        if not samples.any():
            return []
        least = math.ceil(_BLOCK_S * self._sample_rate)
        whole = np.resize(samples, max(len(samples), least)).astype(np.float64)
        self._meter.integrated_loudness(whole)
        return [block for block in self._meter.blockwise_loudness if block > _SILENCE_LUFS]

    def _gain(self, measured: list[float]) -> np.float32:
        """From what was heard and measured to the target; 1 where all was silence."""
        blocks = np.array([*self._heard, *measured])
        if not len(blocks):
            return np.float32(1)
        loud = blocks[blocks > _mean_db(blocks) - _RELATIVE_GATE_DB]
        gain_db = np.clip(self._target_lufs - _mean_db(loud), -_MOST_DB, _MOST_DB)
        return np.float32(10 ** (gain_db / 20))


def _mean_db(levels: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(10 ** (levels / 10))))


def _bend(samples: FloatArray, ceiling: float) -> FloatArray:
    """Never beyond the ceiling: linear below the knee, and without a corner there."""
    knee = _KNEE * ceiling
    room = ceiling - knee
    over = np.abs(samples) - knee
    bent = np.copysign(knee + room * np.tanh(over / room), samples)
    return np.where(over > 0, bent, samples).astype(np.float32)
