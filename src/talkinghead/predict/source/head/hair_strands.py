"""Detection of strands of hair outside the segmented head in a photo."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.types import FloatArray, UInt8Array

# In centimetres: width up to which a structure is a strand, distance from the head up to which it
# may belong to the head, smallest extent of a strand, and radius in which the structures of the
# background, which are not strands, are averaged.
_WIDTH_CM, _REACH_CM, _LENGTH_CM, _BACKGROUND_CM = 0.7, 3.5, 0.6, 5.0
# Smallest difference of a strand from the background on both of its sides in grey levels, number of
# mean differences in the background by which it is larger, and fraction of the sum up to which a
# strand continues.
_DIFFERENCE, _MEANS, _CONTINUED = 10.0, 2.5, 0.5
# Distances from the head in centimetres within which a strand begins, and up to which all of it is.
# Other structures are objects of the background, such as lights and the edge of a shelf.
_START_CM, _WITHIN_CM = 0.7, 3.2
# Fraction of the head's motion above which strands are searched.
_MOVING = 0.5
# Depth in the head in centimetres from which its colour is taken, smallest cosine of the difference
# of a pixel and that of the head from the background, and part of a strand with such pixels.
_INSIDE_CM, _ALIKE, _ALIKE_PART = 0.8, 0.3, 0.5
# Largest size of a median in pixels, which OpenCV limits.
_MAX_MEDIAN = 99
# Mean difference in the background in grey levels from which on nothing is a strand.
_BUSY = 8.0


def find_strands(
    area: UInt8Array, mask: UInt8Array, weight: FloatArray, px_per_cm: float
) -> FloatArray:
    """Return the opacity float32 [H, W] of strands of hair near a head.

    Strands are thin structures that differ from a quiet background on both sides. In front of a
    pattern, they cannot be distinguished from it, and none are returned.

    Args:
        area: the photo around the head, uint8 [H, W, 3].
        mask: 1 in the segmented head, uint8 [H, W].
        weight: fraction of the head's motion, float32 [H, W].
        px_per_cm: pixels per centimetre.
    """
    outside = (mask == 0).astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, 5), np.float32)
    distance /= np.float32(px_per_cm)
    behind, head = _colours(area, mask, px_per_cm)
    light, dark = _thin_structures(area, px_per_cm)
    thin = np.asarray(np.where(head > 0, light, dark).max(2), np.float32)
    far = (distance > _REACH_CM).astype(np.float32)
    if not far.any() or not mask.any():
        return np.zeros(mask.shape, np.float32)
    either = np.asarray(np.maximum(light, dark).max(2), np.float32)
    texture = _local_mean(either, far, _BACKGROUND_CM * px_per_cm)
    limit = _DIFFERENCE + _MEANS * texture
    near = (distance <= _REACH_CM) & (distance > 0) & (texture < _BUSY)
    near &= weight > _MOVING
    labels, kept = _structures(near & (thin > _CONTINUED * limit), distance, px_per_cm)
    kept &= np.bincount(labels[near & (thin > limit)], minlength=len(kept)) > 0
    own = area - behind
    length = np.sqrt((head * head).sum(2) * (own * own).sum(2))
    is_alike = (head * own).sum(2) > _ALIKE * np.maximum(length, 1e-6)
    num_alike = np.bincount(labels[is_alike], minlength=len(kept))
    kept &= num_alike > _ALIKE_PART * np.bincount(labels.ravel(), minlength=len(kept))
    strands = kept[labels].astype(np.uint8)
    wide = cv2.dilate(strands, np.ones((3, 3), np.uint8)).astype(np.float32)
    soft = np.asarray(cv2.GaussianBlur(wide, (0, 0), 0.8)) * (distance > 0)
    # The background between and beside strands does not move with them.
    return np.asarray(soft * (thin / limit).clip(0, 1), np.float32)


def _thin_structures(area: UInt8Array, px_per_cm: float) -> tuple[UInt8Array, UInt8Array]:
    """Return how much pixels [H, W, 3] are lighter, and darker, than both sides of a thin line."""
    side = 2 * max(1, round(_WIDTH_CM * px_per_cm / 2)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    smooth = cv2.GaussianBlur(area, (0, 0), 0.7)
    light = cv2.morphologyEx(smooth, cv2.MORPH_TOPHAT, kernel)
    dark = cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, kernel)
    return np.asarray(light, np.uint8), np.asarray(dark, np.uint8)


def _colours(area: UInt8Array, mask: UInt8Array, px_per_cm: float) -> tuple[FloatArray, FloatArray]:
    """Return the background around each pixel, and the difference of the nearest part of the head.

    Both are float32 [H, W, 3].
    """
    inner = 2 * max(1, round(_INSIDE_CM * px_per_cm)) + 1
    inside = np.asarray(cv2.erode(mask, np.ones((inner, inner), np.uint8)))
    side = min(2 * max(1, round(_WIDTH_CM * px_per_cm)) + 1, _MAX_MEDIAN)
    behind = np.asarray(cv2.medianBlur(area, side), np.float32)
    _, labels = cv2.distanceTransformWithLabels(
        1 - inside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(np.max(labels)) + 1, 3), np.float32)
    colours[np.asarray(labels)[inside > 0]] = behind[inside > 0]
    return behind, np.asarray(colours[labels] - behind)


def _local_mean(values: FloatArray, weight: FloatArray, radius: float) -> FloatArray:
    """Return the mean of the values around each pixel, float32 [H, W]."""
    factor = min(1.0, 4 / radius)
    parts = [
        cv2.resize(a, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        for a in (values * weight, weight)
    ]
    sums = [np.asarray(cv2.GaussianBlur(part, (0, 0), max(radius * factor, 0.5))) for part in parts]
    mean = sums[0] / np.maximum(sums[1], 1e-6)
    known = sums[1] > 1e-3
    mean = np.where(known, mean, 255).astype(np.float32)
    return cast(FloatArray, cv2.resize(mean, values.shape[::-1]))


def _structures(
    possible: npt.NDArray[np.bool_], distance: FloatArray, px_per_cm: float
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Return labels [H, W] of connected pixels, and which of them have the size of strands.

    `distance` is that from the head in centimetres.
    """
    found = cv2.connectedComponentsWithStats(possible.astype(np.uint8), connectivity=8)
    labels, stats = np.asarray(found[1], np.int32), found[2]
    extent = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    kept = extent >= _LENGTH_CM * px_per_cm
    kept &= np.bincount(labels[distance > _WITHIN_CM], minlength=len(kept)) == 0
    kept &= np.bincount(labels[distance < _START_CM], minlength=len(kept)) > 0
    kept[0] = False
    return labels, kept
