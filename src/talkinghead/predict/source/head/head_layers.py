"""Separation of a photo into a head and the background behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from talkinghead.predict.source.head.background_fill import (
    continue_colours,
    continue_edges,
    fill_background,
)
from talkinghead.predict.source.head.hair_strands import find_strands
from talkinghead.predict.source.head.head_geometry import Floats, HeadGeometry, smooth_step
from talkinghead.predict.source.head.head_segmentation import segment_head
from talkinghead.types import FloatArray, UInt8Array

# Maximum side in pixels of the images in which the head is segmented and the background is filled.
_WORKING_SIDE = 256
# Margin around the segmented head, for hair at its edge, and softness of the edge.
_MARGIN_CM, _SOFT_CM = 0.8, 0.35
# Half the width of gaps between strands of hair in which the background is filled, too: its
# reflection would show the strands.
_GAP_CM = 1.0
# Opacity from which on the background behind a pixel is filled, one level.
_FILLED = 1 / 255
# Opacity at the edge of a head. Distance inside the segmented outline from which on it is 1.
# Contrast of head and background, in grey levels, up to which it is 1, and from which on colours
# alone determine it. Distance of a colour from the line between those of head and background up to
# which it is on the line, and from which on it belongs to something else, which is opaque.
_INSIDE_CM, _CONTRAST, _APART = 0.4, (35.0, 80.0), (20.0, 50.0)
# Opacity above which a pixel is made opaque, because the background in it cannot be estimated.
_OPAQUE = 0.96
# Overlap of the layers of two heads that touch, as a fraction of the distance of their faces.
_OVERLAP = 0.04
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
    mask = segment_head(small, head)
    margin = 2 * max(1, round(_MARGIN_CM * px_per_cm)) + 1
    wide = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (margin, margin)))
    blurred = cv2.GaussianBlur(wide.astype(np.float32), (0, 0), max(0.7, _SOFT_CM * px_per_cm))
    soft = np.asarray(blurred, np.float32)
    soft = np.asarray(soft * _matte(small, _hidden(soft), mask, px_per_cm))
    full_mask = cv2.resize(wide, (width, height), interpolation=cv2.INTER_NEAREST)
    moves = np.asarray(cv2.resize(head.weight, (width, height)), np.float32)
    strands = find_strands(area, cast(UInt8Array, full_mask), moves, head.scale)
    # The background does not continue other heads.
    covered = np.maximum(soft, np.asarray(cv2.resize(head.others, size)))
    hidden, gaps = _with_strands(_hidden(covered), _reduced(strands, size), px_per_cm)
    behind = fill_background(area, small, hidden, px_per_cm)
    opacity = np.maximum(np.asarray(cv2.resize(soft, (width, height))), strands).clip(0, 1)
    opacity = np.where(opacity > _OPAQUE, 1, opacity)
    filled = np.asarray(cv2.resize(gaps, (width, height), interpolation=cv2.INTER_NEAREST))
    opacity = np.maximum(opacity, _FILLED * filled)
    # Where two heads touch, their layers overlap, so that no line of the background appears between
    # them when they move apart.
    own = np.asarray(cv2.resize(head.own, (width, height)))
    opacity *= own > np.where(opacity == 1, -_OVERLAP, 0)
    alpha = np.rint(255 * opacity).astype(np.uint8)
    uncut = _uncut_weight(mask, _BORDER_CM * px_per_cm)
    weight = head.weight * cast(FloatArray, cv2.resize(uncut, head.weight.shape[::-1]))
    return _decompose(area, alpha, np.asarray(behind, np.float32), weight)


def _hidden(opacity: FloatArray) -> UInt8Array:
    """Return 1 where a layer hides the background or is next to a pixel that does."""
    return cast(UInt8Array, cv2.dilate((opacity > 0.02).astype(np.uint8), np.ones((3, 3))))


def _reduced(strands: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Return the opacity of strands at a smaller size, in which none of them is lost."""
    factor = max(1, int(np.ceil(strands.shape[1] / size[0])))
    wide = cv2.dilate(strands, np.ones((factor, factor), np.uint8))
    return cast(FloatArray, cv2.resize(wide, size, interpolation=cv2.INTER_AREA))


def _with_strands(
    hidden: UInt8Array, strands: FloatArray, px_per_cm: float
) -> tuple[UInt8Array, UInt8Array]:
    """Return a mask that also hides strands of hair and the gaps between them, and these parts."""
    side = 2 * max(1, round(_GAP_CM * px_per_cm)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    strand = _hidden(strands)
    closed = cv2.morphologyEx(hidden | strand, cv2.MORPH_CLOSE, kernel)
    near = cv2.dilate(strand, kernel)
    gaps = np.asarray(cv2.min(closed, near), np.uint8)
    return np.maximum(hidden, gaps), gaps


def _matte(small: UInt8Array, hidden: UInt8Array, mask: UInt8Array, px_per_cm: float) -> FloatArray:
    """Return the opacity of the head at its edge by its colours, float32 [h, w].

    A pixel is as opaque as its colour is near that of the head, on the line from the colour of the
    background to that of the head inside its edge. Where these are similar, or where the pixel is
    not near this line, it is opaque. Without this, the background at the edge would move with the
    head as a bright or dark rim.
    """
    radius = max(1, round(_INSIDE_CM * px_per_cm))
    inside = np.asarray(cv2.erode(mask, np.ones((2 * radius + 1,) * 2)), np.uint8)
    image, outside = small.astype(np.float32), (inside == 0).astype(np.uint8)
    behind = continue_edges(small, hidden)
    head, own = continue_colours(image, outside, px_per_cm) - behind, image - behind
    contrast = np.sqrt((head * head).sum(2))
    part = ((own * head).sum(2) / np.maximum(contrast, 1) ** 2).clip(0, 1)
    apart = np.sqrt(((own - part[..., None] * head) ** 2).sum(2))
    part = np.maximum(part, _ramp(apart, *_APART))
    opacity = 1 - _ramp(contrast, *_CONTRAST) * (1 - part)
    return np.maximum(opacity, inside).astype(np.float32)


def _ramp(x: Floats | FloatArray, low: float, high: float) -> Floats:
    return smooth_step((x - low) / (high - low))


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


def _decompose(
    area: UInt8Array, alpha: UInt8Array, behind: FloatArray, weight: FloatArray
) -> HeadLayers:
    """Return the layers of an area of a photo.

    Args:
        area: the area, uint8 [H, W, 3].
        alpha: opacity of the head, uint8 [H, W].
        behind: colours of the background, float32 [H, W, 3].
        weight: fraction of the head's motion, float32 on a grid over the area.
    """
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
