"""From one value per clip to a mean and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkinghead.types import FloatArray

MIN_CLIPS = 6
"""With fewer, no difference is called one: values of one sign come by chance too often."""


@dataclass(frozen=True)
class Interval:
    """A mean over clips with its bootstrap interval; `num_clips` had a value."""

    mean: float
    low: float
    high: float
    num_clips: int

    @property
    def leaves_out_zero(self) -> bool:
        """Whether the mean differs from 0 by more than its interval, on `MIN_CLIPS` at least."""
        return self.num_clips >= MIN_CLIPS and (self.low > 0 or self.high < 0)


def bootstrap_interval(
    values: FloatArray, level: float = 0.95, num_samples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of one value per clip, and the interval that resampling the clips gives (percentiles).

    Args:
        values: float [num_clips]; NaN means that the clip has none.
        level: the interval's coverage.
        num_samples: resamplings.
        seed: of the resampling.

    Returns:
        All NaN where no clip has a value.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(seed).integers(len(values), size=(num_samples, len(values)))
    means = values[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def paired_difference(values: FloatArray, others: FloatArray) -> Interval:
    """Mean of `values - others`, clip by clip, with its bootstrap interval.

    Clips differ far more from one another than systems do: only the difference on the same clips
    tells whether one system is the better. An interval that holds 0 says: not by these clips.

    Args:
        values: float [num_clips], NaN where a clip has none.
        others: another system's, for the same clips in the same order.
    """
    return bootstrap_interval(np.asarray(values) - np.asarray(others))
