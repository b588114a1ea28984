"""Refinement of the edges of the inner lips by the colours of the image.

A face mesh places the inner lips too low or too high in some open mouths, by up to half of a lip.
The generator would then treat that part of the lip as the interior of the mouth.
"""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.types import FloatArray, UInt8Array

# For each lip: the inner points, the outer points beside them and the inner points across.
_LIPS = (((19, 18, 17), (10, 9, 8), (13, 14, 15)), ((13, 14, 15), (2, 3, 4), (19, 18, 17)))
# The mouth is scaled to this width in pixels; the other lengths are in these pixels.
_MOUTH_WIDTH = 100.0
_MIN_LENGTH = 3.0
# Range of the search as fractions of the lip's thickness, towards the other lip and away from it.
_INWARD, _OUTWARD = 0.65, 0.3
# Length on both sides over which redness (a* of CIELAB) is averaged, and the smallest step of its
# mean that counts as an edge.
_SIDE, _MIN_STEP = 4.0, 6.0
_SPACING = 0.5
# Scale below which an image is resized before its colours are converted, which is faster.
_LARGE_SCALE = 0.5
# Maximum difference between the shifts of neighbouring points.
_MAX_DIFFERENCE = 3.0


def refine_inner_lips(image: UInt8Array, lips: FloatArray) -> FloatArray:
    """Move the inner points of open lips to the edges that the image shows.

    Lips are redder than teeth and the dark interior of a mouth. Where no such edge is near, the
    points are not moved.

    Args:
        image: uint8 [H, W, 3] RGB.
        lips: lip points [20, 2] in pixels of the image, in ibug68's order.

    Returns:
        The refined points, float32 [20, 2].
    """
    refined = lips.astype(np.float32)
    width = float(np.hypot(*(lips[6] - lips[0])))
    if not width >= _MIN_LENGTH:
        return refined
    scale = _MOUTH_WIDTH / width
    x0, y0 = np.maximum(np.floor(lips.min(0) - 5), 0).astype(int)
    x1, y1 = np.maximum(np.ceil(lips.max(0) + 5), 0).astype(int)
    part = image[y0:y1, x0:x1]
    if not part.size:
        return refined
    redness = _redness(part, scale)
    points = (refined - [x0, y0] + 0.5) * scale - 0.5
    for inner, outer, across in _LIPS:
        threes = zip(inner, outer, across, strict=True)
        shifts = np.array([_shift(redness, *points[list(three)]) for three in threes])
        found = np.isfinite(shifts)
        if found.sum() < 2:
            continue
        middle = np.median(shifts[found])
        limits = middle - _MAX_DIFFERENCE, middle + _MAX_DIFFERENCE
        shifts = np.where(found, np.clip(shifts, *limits), middle)
        outwards = points[list(outer)] - points[list(inner)]
        lengths = np.maximum(np.hypot(*outwards.T), 1e-6)
        refined[list(inner)] += (outwards * (shifts / lengths / scale)[:, None]).astype(np.float32)
    return refined


def _redness(image: UInt8Array, scale: float) -> FloatArray:
    """Return the channel a* (green to red) of an image, resized by `scale` and smoothed."""
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    levels = image.astype(np.float32) / 255
    if scale < _LARGE_SCALE:
        levels = np.asarray(
            cv2.resize(levels, None, fx=scale, fy=scale, interpolation=interpolation)
        )
    redness = cv2.cvtColor(levels, cv2.COLOR_RGB2LAB)[..., 1]
    if scale >= _LARGE_SCALE:
        redness = cv2.resize(redness, None, fx=scale, fy=scale, interpolation=interpolation)
    return np.asarray(cv2.GaussianBlur(redness, (0, 0), 1.0))


def _shift(redness: FloatArray, inner: FloatArray, outer: FloatArray, across: FloatArray) -> float:
    """Return the distance from an inner point to the edge, positive outwards; NaN without edge."""
    thickness, gap = (float(np.hypot(*(other - inner))) for other in (outer, across))
    if min(thickness, gap) < _MIN_LENGTH:
        return float("nan")
    first, last = -min(_INWARD * thickness, gap), _OUTWARD * thickness
    places = np.arange(first - _SIDE, last + _SIDE + _SPACING, _SPACING)
    direction = (outer - inner) / thickness
    beside = np.array([-direction[1], direction[0]]) * np.linspace(-3, 3, 5)[:, None]
    x, y = np.moveaxis(inner + direction * places[:, None, None] + beside, -1, 0).astype(np.float32)
    line = cv2.remap(redness, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).mean(1)
    size = int(_SIDE / _SPACING)
    means = np.convolve(line, np.ones(size) / size, "valid")
    steps = means[size:] - means[:-size]
    best = int(np.argmax(steps))
    return float(places[best + size]) if steps[best] > _MIN_STEP else float("nan")
