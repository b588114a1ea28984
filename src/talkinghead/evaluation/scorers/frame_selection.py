"""Which frames the costly networks look at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_FRAMES = 10
"""Of each clip: LPIPS, identity and FID change little from frame to frame, and cost much."""


def spread(num_frames: int, count: int = MAX_FRAMES) -> npt.NDArray[np.intp]:
    """At most `count` frame numbers out of `num_frames`, evenly spaced, the ends included."""
    chosen = np.linspace(0, num_frames - 1, min(count, num_frames))
    return np.rint(chosen).astype(np.intp)
