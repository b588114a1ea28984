"""Time series of the mouth opening from landmarks, and the correlation of two time series.

Shape suffixes: T video frames, P landmarks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from talkinghead.features.faces.alignment import mouth_opening
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.types import Face, FloatArray, UInt8Array

BoolArray = npt.NDArray[np.bool_]


def track_landmarks(images: UInt8Array, detector: FaceDetector) -> FloatArray:
    """Return the landmarks of the largest face in each frame uint8 [T, H, W, 3] of one shot.

    The landmarks are float32 [T, P, 2] in pixels, NaN in frames without a face; [T, 0, 2] if no
    frame shows a face.
    """
    faces: list[Face | None] = []
    face: Face | None = None
    for image in images:
        face = detector.track(image, face) if face else None
        if face is None:
            face = next(iter(detector.detect(image)), None)
        faces.append(face)
    num_points = max((len(face.points) for face in faces if face), default=0)
    missing = np.full((num_points, 2), np.nan, dtype=np.float32)
    return np.stack([face.points if face else missing for face in faces])


def opening_series(points: FloatArray, topology: str) -> FloatArray:
    """Return the mouth openings float32 [T] of landmarks [T, P, 2]; NaN where unknown."""
    if points.shape[1] == 0:
        return np.full(len(points), np.nan, dtype=np.float32)
    return np.array([mouth_opening(p, topology) for p in points], dtype=np.float32)


def pearson(a: FloatArray, b: FloatArray, mask: BoolArray | None = None) -> float:
    """Return Pearson's r of two series [T] over the frames where both are known and `mask` is true.

    The result is NaN if fewer than three frames are left or a series is constant.
    """
    known = np.isfinite(a) & np.isfinite(b)
    if mask is not None:
        known &= mask
    if known.sum() < 3:
        return float("nan")
    x, y = a[known].astype(np.float64), b[known].astype(np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 1e-12 else float("nan")
