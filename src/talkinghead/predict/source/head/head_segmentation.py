"""Segmentation of a head, its hair and the body in a photo."""

from __future__ import annotations

from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.source.head.head_geometry import HeadGeometry
from talkinghead.types import FloatArray, UInt8Array

_ITERATIONS, _REFINEMENTS = 4, 2
# Width in pixels of the strip on each side of the outline in which it is refined.
_BAND_PX = 4
# Distances from the centre of the head in its radii, for the initial labels of GrabCut. "Probably
# head": up to the first, except where there may be long hair (see `_Start`). "Background": beyond
# the second, above the level of long hair.
_PROBABLE, _OUTSIDE = 1.3, 1.5
# Distances below the centre of the head in centimetres below which there may be long hair, at
# which the neck begins, below which there may be shoulders, and below which there are.
_HAIR_CM, _CHIN_CM, _BODY_CM, _SHOULDERS_CM = 2.0, 9.0, 11.0, 16.0
# Distance from the centre of the head in its radii up to which shoulders are probable.
_PROBABLE_BODY = 1.8


class _Start(NamedTuple):
    """Image and initial labels of one segmentation.

    Attributes:
        side: maximum side of the image in pixels. At a small size, strands of hair and patterns of
            clothes are smooth enough for the colour models.
        is_lab: whether colours are compared in CIELAB, and not in RGB.
        core: distance from the centre of the head in its radii up to which pixels above the level
            of long hair are head.
        hair: distance up to which pixels beside the lower face and the neck are probably head.
    """

    side: int
    is_lab: bool
    core: float
    hair: float


# GrabCut finds a local minimum, which depends on the image and the initial labels. Each of these
# fails in some photos, but seldom two at the same pixel.
_STARTS = (_Start(256, True, 0.0, 1.8), _Start(128, False, 0.0, 1.5), _Start(128, True, 0.8, 1.5))


def segment_head(small: UInt8Array, head: HeadGeometry) -> UInt8Array:
    """Return a mask of the head, the neck and the body in an area, uint8 [h, w].

    Paper: Rother et al., "GrabCut: interactive foreground extraction using iterated graph cuts",
        2004.

    Args:
        small: the area of the head at any size, uint8 [h, w, 3].
        head: the geometry of the head.
    """
    votes = np.sum([_vote(small, head, start) for start in _STARTS], axis=0)
    majority = np.asarray(2 * votes > len(_STARTS), np.uint8)
    return _clean(_refine(small, majority), head)


def _vote(image: UInt8Array, head: HeadGeometry, start: _Start) -> FloatArray:
    """Return a mask float32 [h, w] at the size of an image from one segmentation."""
    factor = min(1.0, start.side / max(image.shape))
    size = (max(8, round(image.shape[1] * factor)), max(8, round(image.shape[0] * factor)))
    coarse = cast(UInt8Array, cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    mask = _clean(_segment(coarse, head, start), head).astype(np.float32)
    return np.asarray(np.asarray(cv2.resize(mask, image.shape[1::-1])) > 0.5, np.float32)


def _segment(image: UInt8Array, head: HeadGeometry, start: _Start) -> UInt8Array:
    """Return a mask uint8 [h, w] by GrabCut from initial labels."""
    size = image.shape[1::-1]
    distance, below = (np.asarray(cv2.resize(f, size)) for f in (head.distance, head.below_cm))
    labels = np.full(distance.shape, cv2.GC_PR_BGD, np.uint8)
    is_above = below < _HAIR_CM
    probable = np.where(below > _BODY_CM, _PROBABLE_BODY, start.hair)
    probable = np.where(is_above, _PROBABLE, probable)
    labels[(distance < probable) | (below > _SHOULDERS_CM)] = cv2.GC_PR_FGD
    labels[(distance > _OUTSIDE) & is_above] = cv2.GC_BGD
    labels[(distance < start.core) & is_above] = cv2.GC_FGD
    # The hair of another head is not a colour of the background.
    others, own = (np.asarray(cv2.resize(f, size)) for f in (head.others, head.own))
    labels[(others > 0.5) & (own < 0)] = cv2.GC_FGD
    hull = cv2.convexHull(np.rint(_outline(head, size)).astype(np.int32))
    cv2.fillConvexPoly(labels, hull, int(cv2.GC_FGD))
    neck = (np.abs(below - _CHIN_CM - 2) < 2.5) & (distance < 1.1)
    labels[neck & (labels == cv2.GC_PR_FGD) & (_across(head, size) < 3)] = cv2.GC_FGD
    if not (labels & 1).any() or not (labels == cv2.GC_BGD).any():
        return (distance < _OUTSIDE).astype(np.uint8)
    return _cut(image, labels, _ITERATIONS, start.is_lab)


def _refine(image: UInt8Array, mask: UInt8Array) -> UInt8Array:
    """Return a mask uint8 [h, w] whose outline follows the colours of an image."""
    band = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _BAND_PX + 1, 2 * _BAND_PX + 1))
    labels = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.erode(mask, band) > 0] = cv2.GC_FGD
    labels[cv2.dilate(mask, band) == 0] = cv2.GC_BGD
    if not (labels == cv2.GC_FGD).any() or not (labels == cv2.GC_BGD).any():
        return mask
    return _cut(image, labels, _REFINEMENTS, is_lab=True)


def _cut(image: UInt8Array, labels: UInt8Array, iterations: int, is_lab: bool) -> UInt8Array:
    colours = cv2.cvtColor(image, cv2.COLOR_RGB2LAB) if is_lab else image
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(colours, labels, (0, 0, 1, 1), *models, iterations, cv2.GC_INIT_WITH_MASK)
    # The labels of the foreground are the odd ones.
    return np.asarray(labels & 1, np.uint8)


def _clean(mask: UInt8Array, head: HeadGeometry) -> UInt8Array:
    """Return the component of a mask with the face, without narrow parts and holes."""
    size = mask.shape[1::-1]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    mask = cast(UInt8Array, cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel))
    _, components = cv2.connectedComponents(cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel))
    middle = np.rint(_outline(head, size).mean(0)).astype(int).clip(0, np.array(size) - 1)
    mask = (components == components[middle[1], middle[0]]).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cast(UInt8Array, cv2.drawContours(mask, contours, -1, 1, cv2.FILLED))


def _outline(head: HeadGeometry, size: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the points of the face [P, 2] in pixels of an image of the area."""
    factor = np.array(size) / np.array([head.box.width, head.box.height])
    return np.asarray((head.face_xy - np.array([head.box.x0, head.box.y0])) * factor)


def _across(head: HeadGeometry, size: tuple[int, ...]) -> FloatArray:
    """Return the distance of each pixel from the vertical line through the axis, in cm."""
    across = np.abs(head.xy[..., 0] - head.axis[0]) / head.scale
    return np.asarray(cv2.resize(across.astype(np.float32), size[:2]))
