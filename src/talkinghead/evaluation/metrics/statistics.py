"""Means over clips with bootstrap confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkinghead.types import FloatArray

MIN_CLIPS = 6
"""Minimum number of clips for a statement about a difference.

With five or fewer clips, the probability that all values have the same sign by chance is over 5 %.
With three or fewer clips, the bootstrap interval only spans the smallest and the largest value.
"""
_NUM_SAMPLES, _QUANTILES = 2000, [(1 - 0.95) / 2, (1 + 0.95) / 2]


@dataclass(frozen=True)
class Interval:
    """A mean over `num_clips` clips, with a bootstrap interval."""

    mean: float
    low: float
    high: float
    num_clips: int

    @property
    def has_enough_clips(self) -> bool:
        """Return whether there are at least `MIN_CLIPS` clips."""
        return self.num_clips >= MIN_CLIPS

    @property
    def excludes_zero(self) -> bool:
        """Return whether there are enough clips and 0 is outside the interval."""
        return self.has_enough_clips and (self.low > 0 or self.high < 0)


def bootstrap_interval(values: FloatArray) -> Interval:
    """Return the mean of values [num_clips] with its 95 % percentile bootstrap interval.

    Clips whose value is NaN are left out. The interval is all NaN if no clip has a value.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(0).integers(len(values), size=(_NUM_SAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), _QUANTILES)
    return Interval(float(values.mean()), float(low), float(high), len(values))
