"""One picture of a face with less noise than the camera and the codec left in it.

A reference's noise is copied into every frame that its texture is warped into, where it stands
still; that of a few more pictures of the same face, each moved onto it, averages out.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from talkinghead.features.faces.alignment import invert, transform_points
from talkinghead.types import FloatArray, UInt8Array

_FLOW_BLUR = 1 / 64
"""Of the picture's width: what moves within less is noise, and no movement."""

_LIKENESS, _LIKENESS_BLUR = 8.0, 1.5
"""Grey levels of 255 and pixels: what differs by more is something else, and no noise."""

_LEAST_SIZE = 32


def nearest_lips(lips: FloatArray, chosen: int, count: int = 15, reach: float = 4.0) -> list[int]:
    """The pictures whose lips lie as the chosen one's do, without itself, nearest first.

    Args:
        lips: float [T, 20, 2], canonical pixels; NaN for unknown.
        chosen: one of the T.
        count: so many at most.
        reach: canonical pixels that a point may lie apart, on average: more than noise, for what
            the flow does not bring over is left out place by place (see `average_onto`).
    """
    apart = np.linalg.norm(lips - lips[chosen], axis=-1).mean(-1)
    apart[chosen] = np.inf
    return [int(i) for i in np.argsort(apart)[:count] if apart[i] <= reach]


def average_onto(image: UInt8Array, others: Iterable[tuple[UInt8Array, FloatArray]]) -> UInt8Array:
    """A picture averaged with others of the same face, each moved onto it by its optical flow.

    Where another picture shows something else (a hand, a tooth), it does not count.

    Args:
        image: uint8 [H, W, 3].
        others: uint8 [h, w, 3] each, with the map from its pixels to the picture's, float [2, 3].

    Returns:
        uint8 [H, W, 3]; the picture itself where a side has less than 32 pixels.

    Paper: Kroeger et al., "Fast optical flow using dense inverse search", 2016.
    """
    height, width = image.shape[:2]
    if min(height, width) < _LEAST_SIZE:
        return image
    dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    here = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    start = np.zeros_like(here)
    total, weights = image.astype(np.float32), np.ones((height, width, 1), np.float32)
    for other, transform in others:
        near = cv2.warpAffine(
            cv2.cvtColor(other, cv2.COLOR_RGB2GRAY),
            transform,
            (width, height),
            borderMode=cv2.BORDER_REPLICATE,
        )
        flow = cv2.GaussianBlur(dense.calc(grey, near, start), (0, 0), _FLOW_BLUR * width)
        x, y = cv2.split(transform_points(here + flow, invert(transform)))
        moved = cv2.remap(other, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        apart = cv2.GaussianBlur(moved.astype(np.float32) - image, (0, 0), _LIKENESS_BLUR)
        weight = np.exp(-(apart**2).mean(-1, keepdims=True) / (2 * _LIKENESS**2))
        total += weight * moved
        weights += weight
    return (total / weights).round().astype(np.uint8)
