"""Continuation of the background of a photo behind a head."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from talkinghead.predict.source.head.head_geometry import Floats, smooth_step
from talkinghead.types import FloatArray, UInt8Array

# Distances in centimetres: width of the edge of the visible background that gives the colours;
# distance up to which its detail is reflected; and radius of the mean that separates detail from
# colour.
_EDGE_CM, _REFLECTED_CM, _DETAIL_CM = 1.0, 6.0, 1.0
# Radius in centimetres of the median whose colours are continued far from the edge, and distance
# from which on they are used. The mean of a pattern is not one of its colours.
_MEDIAN_CM, _FAR_CM = 3.0, 1.5
# Maximum radius of the median in pixels, which OpenCV limits.
_MAX_MEDIAN = 60
# Width in pixels of the border of the area that is not reflected.
_BORDER = 3
# Radius in pixels of the neighbourhood from which the edges of objects are continued, and distances
# in centimetres between which they fade.
_INPAINT_PX, _EDGES_CM = 2, (1.0, 2.0)
# Number of smoothing passes of each level of the pyramid that fills the colours.
_RELAXATIONS = 12
# Differences in grey levels of the smoothed reflection from the filled colours between which the
# reflection is left out: it would put parts of objects, such as a flag's, where they are not.
_FITTING, _UNFITTING = 12.0, 36.0


def fill_background(
    area: UInt8Array, small: UInt8Array, hidden: UInt8Array, px_per_cm: float
) -> UInt8Array:
    """Return a photo whose hidden pixels are continued from the visible ones.

    Detail, such as the grain of the photo or a pattern, is reflected at the edge of the visible
    background. Where the reflection does not fit, edges of objects are continued for a short
    distance. Otherwise, the colours are interpolated smoothly; further inside, they are those of
    most of the pixels near the edge, so that a pattern does not become a mixture of its colours.

    Args:
        area: the photo, uint8 [H, W, 3].
        small: the same at a smaller size, uint8 [h, w, 3].
        hidden: uint8 [h, w], 1 where the background is not visible.
        px_per_cm: pixels of `small` per centimetre.
    """
    if not hidden.any() or hidden.all():
        return area
    smooth = _mean_of_visible(small, hidden, _DETAIL_CM * px_per_cm)
    filled = continue_colours(smooth, hidden, px_per_cm)
    edges = continue_edges(small, hidden)
    distance, nearest = _nearest_visible(hidden)
    source, weight = _reflection(hidden, distance, nearest, _REFLECTED_CM * px_per_cm)
    height, width = area.shape[:2]
    scale = np.array([width, height]) / hidden.shape[::-1]
    reflected = _sample(smooth, source.astype(np.float32))
    difference = cv2.dilate(np.abs(reflected - filled).max(2), _disc(_DETAIL_CM * px_per_cm))
    weight *= smooth_step((_UNFITTING - difference) / (_UNFITTING - _FITTING))
    weight = np.asarray(cv2.GaussianBlur(weight, (0, 0), 1.0))
    median = _median_of_visible(smooth, nearest, px_per_cm)
    far = smooth_step(distance / (_FAR_CM * px_per_cm))[..., None].astype(np.float32)
    filled += far * (continue_colours(median, hidden, px_per_cm) - filled)
    fitting = weight[..., None].astype(np.float32)
    start, end = _EDGES_CM
    near = smooth_step((end - distance / px_per_cm) / (end - start))[..., None] * (1 - fitting)
    filled += near * (edges - filled)
    detail = area.astype(np.float32) - _enlarge(smooth, area)
    detail = _sample(detail, _enlarge((source + 0.5) * scale - 0.5, area))
    behind = _enlarge(filled, area) + _enlarge(weight, area)[..., None] * detail
    return np.rint(behind.clip(0, 255)).astype(np.uint8)


def continue_edges(image: UInt8Array, hidden: UInt8Array) -> FloatArray:
    """Return an image float32 [h, w, 3] whose hidden pixels continue the edges of the visible ones.

    Paper: Telea, "An image inpainting technique based on the fast marching method", 2004.
    """
    filled = cv2.inpaint(image, hidden, _INPAINT_PX, cv2.INPAINT_TELEA)
    return np.asarray(filled, np.float32)


def continue_colours(image: FloatArray, hidden: UInt8Array, px_per_cm: float) -> FloatArray:
    """Return an image float32 [h, w, 3] whose hidden pixels continue the visible ones smoothly.

    Each level of a pyramid starts from the next coarser one and is smoothed where it is unknown.
    """
    edge = np.asarray(cv2.dilate(hidden, _disc(_EDGE_CM * px_per_cm))) - hidden
    weight = edge.astype(np.float32)
    levels = [(image * weight[..., None], weight)]
    while levels[-1][1].min() < 0.99 and min(levels[-1][1].shape) > 1:
        colours, seen = (np.asarray(cv2.pyrDown(field), np.float32) for field in levels[-1])
        # Where enough is visible, the colour is known.
        gain = np.minimum(1 / np.maximum(seen, 1e-6), 4.0)
        levels.append((colours * gain[..., None], np.asarray(seen * gain)))
    colours, seen = levels.pop()
    filled = colours / np.maximum(seen, 1e-6)[..., None]
    for colours, seen in reversed(levels):
        filled = np.asarray(cv2.resize(filled, seen.shape[::-1], interpolation=cv2.INTER_LINEAR))
        unknown = (1 - seen.clip(0, 1))[..., None]
        for _ in range(_RELAXATIONS):
            filled = colours + unknown * np.asarray(cv2.blur(filled, (3, 3)))
    return np.asarray(np.where(hidden[..., None] > 0, filled, image), np.float32)


def _mean_of_visible(small: UInt8Array, hidden: UInt8Array, radius: float) -> FloatArray:
    """Return the mean colour of the visible pixels around each pixel, float32 [h, w, 3]."""
    seen = (hidden == 0).astype(np.float32)
    sigma = max(1.0, radius / 2)
    total = cv2.GaussianBlur(small * seen[..., None], (0, 0), sigma)
    count = np.asarray(cv2.GaussianBlur(seen, (0, 0), sigma))
    return np.asarray(total / np.maximum(count, 1e-6)[..., None], np.float32)


def _sample(field: FloatArray, at: FloatArray) -> FloatArray:
    border = cv2.BORDER_REPLICATE
    return cv2.remap(field, at, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore[call-overload]


def _enlarge(values: Floats | FloatArray, area: UInt8Array) -> FloatArray:
    size = area.shape[1::-1]
    return cast(FloatArray, cv2.resize(values.astype(np.float32), size))


def _disc(radius: float) -> UInt8Array:
    side = 2 * max(1, round(radius)) + 1
    return cast(UInt8Array, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))


def _nearest_visible(hidden: UInt8Array) -> tuple[FloatArray, Floats]:
    """Return the distance [h, w] to the nearest visible cell, and its column and row [h, w, 2]."""
    distance, found = cv2.distanceTransformWithLabels(
        hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.asarray(found)
    rows, columns = np.mgrid[: hidden.shape[0], : hidden.shape[1]]
    is_visible = hidden == 0
    nearest = np.zeros((int(labels.max()) + 1, 2))
    nearest[labels[is_visible]] = np.stack([columns[is_visible], rows[is_visible]], -1)
    return np.asarray(distance, np.float32), nearest[labels]


def _median_of_visible(smooth: FloatArray, nearest: Floats, px_per_cm: float) -> FloatArray:
    """Return the median colour of the visible pixels around each pixel, float32 [h, w, 3]."""
    column, row = np.moveaxis(nearest.astype(int), -1, 0)
    extended = np.rint(smooth[row, column]).clip(0, 255).astype(np.uint8)
    side = 2 * max(1, min(round(_MEDIAN_CM * px_per_cm), _MAX_MEDIAN)) + 1
    median = cv2.medianBlur(extended, side).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(median, (0, 0), max(0.5, 0.5 * px_per_cm)), np.float32)


def _reflection(
    hidden: UInt8Array, distance: FloatArray, nearest: Floats, reach: float
) -> tuple[Floats, Floats]:
    """Return the reflection [h, w, 2] of each hidden cell at the edge, and its weight [h, w]."""
    rows, columns = np.mgrid[: hidden.shape[0], : hidden.shape[1]]
    is_visible = hidden == 0
    edge = cv2.GaussianBlur(nearest, (0, 0), 1.5)
    source = np.asarray(2 * edge - np.stack([columns, rows], -1), np.float64)
    size = np.array(hidden.shape[::-1])
    inside = (source >= 0).all(-1) & (source < size - 1).all(-1)
    at = source.astype(np.float32)
    # Frames of videos often have a dark line at their border.
    border = np.pad(np.ones(np.array(hidden.shape) - 2 * _BORDER), _BORDER)
    seen = _sample((is_visible * border).astype(np.float32), at)
    near = smooth_step(2 - 2 * distance / reach)
    return source, np.where(inside & ~is_visible, seen, 0) * near
