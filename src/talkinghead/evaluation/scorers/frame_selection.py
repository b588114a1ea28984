"""Selection of the frames that expensive networks score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_FRAMES = 10
"""Frames per clip: LPIPS, identity and FID vary little from frame to frame and are expensive."""


def evenly_spaced(num_frames: int, count: int = MAX_FRAMES) -> npt.NDArray[np.intp]:
    """Return at most `count` evenly spaced frame indices, including the first and the last."""
    chosen = np.linspace(0, num_frames - 1, min(count, num_frames))
    return np.rint(chosen).astype(np.intp)
