"""Separation of a photo into a head and the background behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.source.head.head_geometry import Floats, HeadGeometry, smooth_step
from talkinghead.types import FloatArray, UInt8Array

# Maximum side in pixels of the images in which the head is segmented and the background is filled.
_WORKING_SIDE = 256
_ITERATIONS = 4
# Distances from the centre of the head in its radii, for the initial labels of GrabCut. "Probably
# head": up to the first, or up to the second where there may be long hair. "Background": beyond the
# third, above the level of long hair.
_PROBABLE, _PROBABLE_HAIR, _OUTSIDE = 1.3, 1.8, 1.5
# Distances below the centre of the head in centimetres below which there may be long hair, and at
# which the neck and the shoulders begin.
_HAIR_CM, _CHIN_CM, _SHOULDERS_CM = 2.0, 9.0, 16.0
# Margin around the segmented head, for hair at its edge, and softness of the edge.
_MARGIN_CM, _SOFT_CM = 0.8, 0.35
# Distance from the visible background up to which the filled background is its reflection.
_REFLECTED_CM = 3.5
# Contrast of the background in grey levels at which reflection begins to replace the smooth
# filling, completely at twice this contrast.
_MIN_STRUCTURE = 14.0
# Width of the strip in which the motion fades where the border of the area cuts the head's layer.
_BORDER_CM = 4.0
# Fraction of the head's motion above which the background is filled in.
_MOVING = 0.4


@dataclass(frozen=True, eq=False)
class HeadLayers:
    """Layers of a head's area, whose blend is the photo.

    Attributes:
        alpha: opacity of the head's layer, uint8 [H, W].
        edge: uint8 [H, W], 255 where the head's layer differs from the photo: where it is not
            opaque.
        foreground: colours of the head's layer there, multiplied by its opacity, uint8 [H, W, 3].
        background: the photo with the moving part of the head filled in, uint8 [H, W, 3].
        still_background: the same with corrections at the edge that make the blend with the head at
            its original position equal to the photo.
        weight: fraction of the head's motion, less where the border of the area cuts the head,
            float32 [h, w].
    """

    alpha: UInt8Array
    edge: UInt8Array
    foreground: UInt8Array
    background: UInt8Array
    still_background: UInt8Array
    weight: FloatArray


def separate_head(area: UInt8Array, head: HeadGeometry) -> HeadLayers:
    """Separate the head from the background in an area uint8 [H, W, 3] of a photo."""
    height, width = area.shape[:2]
    factor = min(1.0, _WORKING_SIDE / max(height, width))
    size = max(8, round(width * factor)), max(8, round(height * factor))
    small = cast(UInt8Array, cv2.resize(area, size, interpolation=cv2.INTER_AREA))
    px_per_cm = head.scale * size[0] / width
    mask = _segment(small, head)
    margin = 2 * max(1, round(_MARGIN_CM * px_per_cm)) + 1
    wide = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (margin, margin)))
    soft = cv2.GaussianBlur(wide.astype(np.float32), (0, 0), max(0.7, _SOFT_CM * px_per_cm))
    hidden = cast(UInt8Array, cv2.dilate((soft > 0.02).astype(np.uint8), np.ones((3, 3), np.uint8)))
    filled = _fill(small, hidden)
    large = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    alpha = np.rint(255 * np.asarray(large).clip(0, 1)).astype(np.uint8)
    smooth = cast(UInt8Array, cv2.resize(filled, (width, height), interpolation=cv2.INTER_CUBIC))
    behind = _reflect(area, small, smooth, hidden, _REFLECTED_CM * px_per_cm)
    uncut = _uncut_weight(mask, _BORDER_CM * px_per_cm)
    weight = head.weight * cast(FloatArray, cv2.resize(uncut, head.weight.shape[::-1]))
    return _decompose(area, alpha, np.asarray(behind, np.float32), weight)


def _uncut_weight(mask: UInt8Array, strip: float) -> FloatArray:
    """Return a weight float32 [h, w] that is 0 where the border of the area cuts the head.

    Args:
        mask: uint8 [h, w], 1 in the head.
        strip: distance from the cut at which the weight is 1, in cells.
    """
    edge = np.pad(np.zeros(np.array(mask.shape) - 2, np.uint8), 1, constant_values=1)
    cut = mask & edge
    if not cut.any():
        return np.ones(mask.shape, np.float32)
    return smooth_step(cv2.distanceTransform(1 - cut, cv2.DIST_L2, 5) / strip).astype(np.float32)


def _segment(small: UInt8Array, head: HeadGeometry) -> npt.NDArray[np.uint8]:
    """Return a mask of the head, the neck and the body, uint8 [h, w].

    Paper: Rother et al., "GrabCut: interactive foreground extraction using iterated graph cuts",
        2004.
    """
    size = small.shape[1::-1]
    distance, below = (np.asarray(cv2.resize(f, size)) for f in (head.distance, head.below_cm))
    labels = np.full(distance.shape, cv2.GC_PR_BGD, np.uint8)
    is_body = below > _SHOULDERS_CM
    probable = np.where(below > _HAIR_CM, _PROBABLE_HAIR, _PROBABLE)
    labels[(distance < probable) | is_body] = cv2.GC_PR_FGD
    labels[(distance > _OUTSIDE) & (below < _HAIR_CM)] = cv2.GC_BGD
    factor = np.array(size) / np.array([head.box.width, head.box.height])
    outline = (head.face_xy - np.array([head.box.x0, head.box.y0])) * factor
    hull = cv2.convexHull(np.rint(outline).astype(np.int32))
    cv2.fillConvexPoly(labels, hull, int(cv2.GC_FGD))
    neck = (np.abs(below - _CHIN_CM - 2) < 2.5) & (distance < 1.1)
    labels[neck & (labels == cv2.GC_PR_FGD) & (_across(head, size) < 3)] = cv2.GC_FGD
    has_head = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).any()
    if not (has_head and (labels == cv2.GC_BGD).any()):
        return (distance < _OUTSIDE).astype(np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    cv2.grabCut(lab, labels, (0, 0, 1, 1), *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    mask = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    mask = cv2.morphologyEx(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel), cv2.MORPH_OPEN, kernel)
    # Keep the component with the face, and fill its holes.
    _, components = cv2.connectedComponents(mask)
    middle = np.rint(outline.mean(0)).astype(int).clip(0, np.array(size) - 1)
    mask = (components == components[middle[1], middle[0]]).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cast(UInt8Array, cv2.drawContours(mask, contours, -1, 1, cv2.FILLED))


def _across(head: HeadGeometry, size: tuple[int, ...]) -> FloatArray:
    """Return the distance of each pixel from the vertical line through the axis, in cm."""
    across = np.abs(head.xy[..., 0] - head.axis[0]) / head.scale
    return np.asarray(cv2.resize(across.astype(np.float32), size[:2]))


def _fill(small: UInt8Array, hidden: UInt8Array) -> UInt8Array:
    """Return an image whose hidden pixels are continued from the others.

    Paper: Telea, "An image inpainting technique based on the fast marching method", 2004.
    """
    if hidden.all():
        return small
    return cast(UInt8Array, cv2.inpaint(small, hidden, 3, cv2.INPAINT_TELEA))


def _reflect(
    area: UInt8Array, small: UInt8Array, behind: UInt8Array, hidden: UInt8Array, reach: float
) -> UInt8Array:
    """Return a filled background whose pixels near a structured background are reflections of it.

    The reflections have the structure of the background, unlike the filled pixels, which are
    smooth.

    Args:
        area: the photo, uint8 [H, W, 3].
        small: the same, uint8 [h, w, 3].
        behind: the filled background, uint8 [H, W, 3].
        hidden: uint8 [h, w], 1 where the background is not visible.
        reach: distance from the visible background up to which it is reflected, in cells [h, w].
    """
    if not hidden.any() or hidden.all():
        return behind
    source, weight = _reflection(hidden, reach)
    weight *= smooth_step((_structure(small, hidden, reach) - _MIN_STRUCTURE) / _MIN_STRUCTURE)
    soft = np.asarray(cv2.GaussianBlur(weight.astype(np.float32), (0, 0), 1.0), np.float32)
    height, width = area.shape[:2]
    factor = np.array([width, height]) / hidden.shape[::-1]
    at = ((source + 0.5) * factor - 0.5).astype(np.float32)
    at, soft = (np.asarray(cv2.resize(f, (width, height)), np.float32) for f in (at, soft))
    texture = cv2.remap(area, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return cast(UInt8Array, cv2.blendLinear(texture, behind, soft, np.float32(1) - soft))


def _reflection(hidden: UInt8Array, reach: float) -> tuple[Floats, Floats]:
    """Return the reflection [h, w, 2] of each hidden cell at the edge, and its weight [h, w]."""
    distance, found = cv2.distanceTransformWithLabels(
        hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.asarray(found)
    rows, columns = np.mgrid[: hidden.shape[0], : hidden.shape[1]]
    is_visible = hidden == 0
    nearest = np.zeros((int(labels.max()) + 1, 2))
    nearest[labels[is_visible]] = np.stack([columns[is_visible], rows[is_visible]], -1)
    edge = cv2.GaussianBlur(nearest[labels], (0, 0), 1.5)
    source = np.asarray(2 * edge - np.stack([columns, rows], -1), np.float64)
    size = np.array(hidden.shape[::-1])
    inside = (source >= 0).all(-1) & (source < size - 1).all(-1)
    at = source.astype(np.float32)
    seen = cv2.remap(is_visible.astype(np.float32), at, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
    near = smooth_step(2 - 2 * np.asarray(distance) / reach)
    return source, np.where(inside & ~is_visible, seen, 0) * near


def _structure(small: UInt8Array, hidden: UInt8Array, reach: float) -> FloatArray:
    """Return the mean contrast of the visible background around each cell, float32 [h, w]."""
    seen = (hidden == 0).astype(np.float32)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)

    def mean(values: FloatArray) -> FloatArray:
        total, count = (cv2.GaussianBlur(v, (0, 0), reach / 2) for v in (values * seen, seen))
        return np.asarray(total / np.maximum(count, 1e-3))

    average = mean(grey)
    return mean(np.abs(grey - average))


def _decompose(
    area: UInt8Array, alpha: UInt8Array, behind: FloatArray, weight: FloatArray
) -> HeadLayers:
    """Return the layers for an opacity, a background, and the fraction [h, w] of the motion."""
    fraction = np.asarray(cv2.resize(weight, alpha.shape[::-1]), np.float32)
    photo, a = area.astype(np.float32), alpha[..., None] / np.float32(255)
    behind = np.where(a == 0, photo, behind)
    is_edge = (a > 0) & (a < 1)
    colours = (photo - (1 - a) * behind) / np.where(is_edge, a, 1)
    foreground = np.rint(np.where(is_edge, colours, photo).clip(0, 255))
    rest = (photo - a * foreground) / np.where(is_edge, 1 - a, 1)
    still = np.where(is_edge, rest, behind)
    moves = smooth_step(fraction / _MOVING)[..., None]
    turned = still + moves * (behind - still)
    turned, still = (np.rint(layer.clip(0, 255)).astype(np.uint8) for layer in (turned, still))
    edge = (alpha < 255).astype(np.uint8) * np.uint8(255)
    foreground = np.rint(a * foreground).astype(np.uint8)
    return HeadLayers(alpha, edge, foreground, turned, still, weight)
