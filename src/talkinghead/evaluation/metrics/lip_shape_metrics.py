"""Shape of the lips over time: mouth width, and motion of all 20 lip points.

Shape suffixes: T video frames, P landmarks.
"""

from __future__ import annotations

import numpy as np

from talkinghead.features.faces.alignment import LIP_POINTS
from talkinghead.features.faces.mouth_motion import pearson
from talkinghead.types import FloatArray

_MOUTH_CORNERS = (0, 6)
_EYE_CORNERS = {"mesh468": (33, 263), "ibug68": (36, 45)}


def width_series(points: FloatArray, topology: str) -> FloatArray:
    """Return the mouth width float32 [T] in outer-eye distances; NaN where unknown.

    Args:
        points: landmarks, float [T, P, 2], NaN where unknown.
        topology: "mesh468" or "ibug68".
    """
    if points.shape[1] == 0:
        return np.full(len(points), np.nan, dtype=np.float32)
    left, right = (points[:, LIP_POINTS[topology][corner]] for corner in _MOUTH_CORNERS)
    width = np.linalg.norm(right - left, axis=-1) / _eye_distance(points, topology)
    return np.asarray(width, dtype=np.float32)


def lip_shape_motion(points: FloatArray, topology: str) -> FloatArray:
    """Return the displacement of the lips from the rest shape, float [T, 20, 2] in eye distances.

    The rest shape is the median over the clip. The landmarks must be in the coordinates of the
    canonical face, in which the head does not move. See `width_series` for the arguments.
    """
    if points.shape[1] == 0:
        return np.full((len(points), 20, 2), np.nan, dtype=np.float32)
    lips = points[:, list(LIP_POINTS[topology])]
    known = np.isfinite(lips).all(axis=(1, 2))
    if not known.any():
        return np.full_like(lips, np.nan)
    scale = np.median(_eye_distance(points[known], topology))
    return np.asarray((lips - np.median(lips[known], axis=0)) / scale)


def lip_shape_error(generated: FloatArray, real: FloatArray) -> float:
    """Return the mean distance of the displacements of the lip points, in eye distances.

    Differences between the rest shapes do not count. Frames without known lips are left out; the
    result is NaN if no frame is left.

    Args:
        generated: result of `lip_shape_motion`, float [T, 20, 2].
        real: the same of the real clip.
    """
    distance = np.linalg.norm(generated - real, axis=-1).mean(axis=1)
    known = np.isfinite(distance)
    return float(distance[known].mean()) if known.any() else float("nan")


def lip_shape_correlation(generated: FloatArray, real: FloatArray) -> float:
    """Return Pearson's r over all frames and coordinates of the displacements [T, 20, 2].

    Each coordinate is centred over time, so that large motions have large weights. A still mouth
    has r = 0; the result is NaN if the real mouth does not move or is unknown.
    """
    known = np.isfinite(generated).all(axis=(1, 2)) & np.isfinite(real).all(axis=(1, 2))
    if not known.any():
        return float("nan")
    ours, theirs = (
        (series[known] - series[known].mean(axis=0)).ravel() for series in (generated, real)
    )
    r = pearson(ours, theirs)
    return 0.0 if np.isnan(r) and known.sum() >= 3 and np.ptp(theirs) > np.ptp(ours) else r


def _eye_distance(points: FloatArray, topology: str) -> FloatArray:
    left, right = _EYE_CORNERS[topology]
    return np.asarray(np.linalg.norm(points[:, left] - points[:, right], axis=-1))
