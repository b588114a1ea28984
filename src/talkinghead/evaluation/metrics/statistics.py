"""Means over clips with bootstrap confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkinghead.types import FloatArray

MIN_CLIPS = 6
"""Fewest clips for a statement about a difference.

With five or fewer clips, all values have the same sign by chance in over 5 % of cases, and with up
to three the bootstrap interval merely spans the smallest and the largest value.
"""


@dataclass(frozen=True)
class Interval:
    """A mean over `num_clips` clips, with a bootstrap interval."""

    mean: float
    low: float
    high: float
    num_clips: int

    @property
    def has_enough_clips(self) -> bool:
        """Whether there are at least `MIN_CLIPS` clips."""
        return self.num_clips >= MIN_CLIPS

    @property
    def excludes_zero(self) -> bool:
        """Whether there are enough clips and 0 is outside the interval."""
        return self.has_enough_clips and (self.low > 0 or self.high < 0)


def bootstrap_interval(
    values: FloatArray, level: float = 0.95, num_samples: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean of one value per clip with its percentile bootstrap interval.

    Args:
        values: float [num_clips]; NaN for clips without a value.
        level: coverage of the interval.
        num_samples: number of resamplings.
        seed: seed of the resampling.

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
    """Return the mean of `values - others` over the same clips, with its bootstrap interval.

    Clips differ far more from one another than systems do, so systems are compared clip by clip.

    Args:
        values: float [num_clips], NaN for clips without a value.
        others: float [num_clips], another system's values for the same clips in the same order.
    """
    return bootstrap_interval(np.asarray(values) - np.asarray(others))
