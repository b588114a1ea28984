"""Estimate of the remaining time, for the log lines of long evaluations."""

from __future__ import annotations

import time


class TimeLeft:
    """Estimator of the remaining time for a number of steps of equal cost.

    Example:
        >>> left = TimeLeft(len(clips))
        >>> for clip in clips:
        ...     score(clip)
        ...     print(left.after_step())
        (about 2 min left)
    """

    def __init__(self, num_steps: int) -> None:
        self._num_left, self._num_done = num_steps, 0
        self._started_s = time.monotonic()

    def after_step(self) -> str:
        """Count one more step, and return the remaining time as text, empty after the last one."""
        self._num_left, self._num_done = self._num_left - 1, self._num_done + 1
        left_s = (time.monotonic() - self._started_s) / self._num_done * self._num_left
        if left_s <= 0:
            return ""
        if left_s < 90:
            return f"(about {left_s:.0f} s left)"
        return f"(about {left_s / 60:.0f} min left)"
