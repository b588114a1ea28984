"""Audio-video offset from detected lip motion and the motion that a lip prior predicts.

The lip prior generalises to more speakers than the sync expert, which was trained on GRID only.

Shape suffixes: T video frames, S shifts, B blocks of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from talkinghead.types import FloatArray
from talkinghead.value_rules import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    UnitFloat,
    check_fields,
)

PredictLips = Callable[[FloatArray], FloatArray]
"""Function from samples [N] at the AVSpec's rate to lip motion [T, 20, 2]; see `LipPrior`."""

_BLOCK_FRAMES = 50
_MIN_FRAMES = 15


@dataclass(frozen=True)
class LipOffsetRules:
    """Rules for accepting and correcting the audio-video offset measured by a lip prior.

    Attributes:
        max_offset_frames: Offset in frames above which clips are skipped as "out of sync".
        min_correlation: Smallest correlation of predicted and detected lip motion with which an
            offset is reliable.
        max_standard_error: Largest standard error in frames with which an offset is reliable.
        pooled_below_s: Duration in seconds below which the clips of a speaker get one common
            offset, measured on all of them.
        undetermined: "keep" clips without a reliable offset as they are, or "drop" them.
        correct: Shift the audio to correct the measured offset.

    Raises:
        UsageError: A value is out of range.
    """

    max_offset_frames: PositiveInt = 15
    min_correlation: UnitFloat = 0.25
    max_standard_error: PositiveFloat = 1.0
    pooled_below_s: NonNegativeFloat = 8.0
    undetermined: Literal["keep", "drop"] = "keep"
    correct: bool = True

    def __post_init__(self) -> None:
        check_fields(self, "lip_offset.")


@dataclass(frozen=True)
class LipOffset:
    """Measured offset.

    Attributes:
        frames: number of frames by which the audio is late, with fractions; NaN if unknown.
        correlation: Pearson's r of the predicted and the detected motion of all lip points at this
            offset, after each clip's mean is subtracted.
        standard_error: uncertainty of `frames`, from estimates that leave out one block of two
            seconds each (jackknife); infinite with fewer than two blocks.
    """

    frames: float
    correlation: float
    standard_error: float

    def is_reliable(self, rules: LipOffsetRules) -> bool:
        """Return whether the offset is certain enough."""
        certain = self.standard_error <= rules.max_standard_error
        return certain and self.correlation >= rules.min_correlation


def measure_lip_offset(
    clips: Iterable[tuple[FloatArray, FloatArray]], max_offset: int
) -> LipOffset:
    """Return the offset that one or several clips of a source have in common.

    Args:
        clips: pairs of predicted and detected lip motion [T, 20, 2]; NaN where unknown.
        max_offset: largest offset in frames, in both directions.
    """
    sums = [block_sums(*clip, max_offset) for clip in clips]
    sums_BS3 = np.concatenate([np.zeros((0, 2 * max_offset + 1, 3)), *sums])
    total = sums_BS3.sum(0)
    if not total[:, 1:].all():
        return LipOffset(float("nan"), 0.0, float("inf"))
    frames, correlation = _peak(total)
    rest = [_peak(total - block)[0] for block in sums_BS3]
    count = len(rest)
    error = float(np.std(rest) * np.sqrt(count - 1)) if count > 1 else float("inf")
    return LipOffset(frames, correlation, error)


def block_sums(
    predicted: FloatArray, detected: FloatArray, max_offset: int
) -> npt.NDArray[np.float64]:
    """Return sums over blocks of a clip, [B, 2 * max_offset + 1, 3], by increasing audio delay.

    The sums are those of predicted x detected, predicted squared and detected squared.
    """
    size = min(len(predicted), len(detected))
    predicted = predicted[:size].reshape(size, -1)
    detected = detected[:size].reshape(size, -1)
    num_blocks = max(1, round(size / _BLOCK_FRAMES))
    sums = np.zeros((num_blocks, 2 * max_offset + 1, 3))
    for column, shift in enumerate(range(-max_offset, max_offset + 1)):
        rows = np.arange(max(0, shift), min(size, size + shift))
        x, y = predicted[rows], detected[rows - shift]
        known = np.isfinite(x).all(1) & np.isfinite(y).all(1)
        if known.sum() < _MIN_FRAMES:
            continue
        x, y, rows = x[known], y[known], rows[known]
        x, y = x - x.mean(0), y - y.mean(0)
        products = np.stack([(x * y).sum(1), (x * x).sum(1), (y * y).sum(1)], 1)
        np.add.at(sums[:, column], rows * num_blocks // size, products)
    return sums


def delay_motion(motion: FloatArray, num_frames: float) -> FloatArray:
    """Return motion [T, ...] delayed by a number of frames, interpolated; NaN where unknown."""
    times = np.arange(len(motion)) - num_frames
    lower = np.floor(times).astype(int)
    known = (lower >= 0) & (lower + 1 < len(motion))
    shape = (-1, *(1,) * (motion.ndim - 1))
    fraction = (times - lower)[known].astype(np.float32).reshape(shape)
    delayed = np.full_like(motion, np.nan)
    before, after = motion[lower[known]], motion[lower[known] + 1]
    delayed[known] = before + fraction * (after - before)
    return delayed


def _peak(sums_S3: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the shift with the largest correlation, interpolated by a parabola, and this r."""
    r = sums_S3[:, 0] / np.sqrt(np.maximum(sums_S3[:, 1] * sums_S3[:, 2], 1e-12))
    best = int(r.argmax())
    shift = 0.0
    if 0 < best < len(r) - 1:
        before, peak, after = r[best - 1 : best + 2]
        curvature = before - 2 * peak + after
        shift = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    return best - len(r) // 2 + float(shift), float(r[best])
