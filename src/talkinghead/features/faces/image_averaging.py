"""Noise reduction of a reference image by averaging aligned images of the same face.

The reference's texture is warped into every frame, so its noise would appear as a static pattern.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from talkinghead.features.faces.alignment import invert, transform_points
from talkinghead.types import FloatArray, UInt8Array

# Largest side of the images between which the optical flow is computed, and standard deviation of
# its blur as a fraction of the image width, which removes finer motion in any case.
_FLOW_SIDE, _FLOW_BLUR = 320, 1 / 64
# Side in pixels above which faster methods are used, whose results differ little.
_LARGE_SIDE = 640
# Largest difference that counts as noise, in grey levels of 255, and the standard deviation in
# pixels of the blur of the difference.
_MAX_NOISE, _NOISE_BLUR = 8.0, 1.5
_MIN_SIZE = 32


def nearest_lips(lips: FloatArray, chosen: int, count: int = 15, reach: float = 4.0) -> list[int]:
    """Return the frames with the lips [T, 20, 2] most similar to frame `chosen`, in order.

    The mean distance of the points is at most `reach` canonical pixels. This limit may exceed the
    noise, as `average_onto` ignores regions that do not match.
    """
    apart = np.linalg.norm(lips - lips[chosen], axis=-1).mean(-1)
    apart[chosen] = np.inf
    return [int(i) for i in np.argsort(apart)[:count] if apart[i] <= reach]


def average_onto(image: UInt8Array, others: Iterable[tuple[UInt8Array, FloatArray]]) -> UInt8Array:
    """Average an image with other images of the same face, aligned by optical flow.

    Regions where another image shows something else (a hand, a tooth) are ignored.

    Args:
        image: uint8 [H, W, 3]; returned unchanged if a side has less than 32 pixels.
        others: pairs of an image uint8 [h, w, 3] and the affine map float [2, 3] from its pixels to
            those of `image`.

    Paper: Kroeger et al., "Fast optical flow using dense inverse search", 2016.
    """
    height, width = image.shape[:2]
    if min(height, width) < _MIN_SIZE:
        return image
    size, border = (width, height), cv2.BORDER_REPLICATE
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    here = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    total, weights = image.astype(np.float32), np.ones((height, width), np.float32)
    for other, transform in others:
        other_grey = cv2.cvtColor(other, cv2.COLOR_RGB2GRAY)
        near = cv2.warpAffine(other_grey, transform, size, borderMode=border)
        places = here + _smooth_flow(grey, near)
        if max(size) > _LARGE_SIDE:
            x, y = cv2.split(cv2.transform(places, invert(transform)))
        else:
            x, y = cv2.split(transform_points(places, invert(transform)))
        moved = cv2.remap(other, x, y, cv2.INTER_CUBIC, borderMode=border)
        apart = cv2.subtract(moved, image, dtype=cv2.CV_32F)
        # NumPy is several times slower with the three channels in one array.
        red, green, blue = cv2.split(cv2.GaussianBlur(apart, (0, 0), _NOISE_BLUR))
        apart = (red * red + green * green + blue * blue) / np.float32(3)
        weight = np.exp(-apart / (2 * _MAX_NOISE**2))
        total += cv2.multiply(cv2.merge((weight, weight, weight)), moved, dtype=cv2.CV_32F)
        weights += weight
    return (total / weights[..., None]).round().astype(np.uint8)


def _smooth_flow(grey: NDArray[Any], other: NDArray[Any]) -> FloatArray:
    """Return the smoothed optical flow float32 [H, W, 2] between grey images uint8 [H, W]."""
    height, width = grey.shape
    factor = min(1.0, _FLOW_SIDE / max(height, width))
    size = max(_MIN_SIZE, round(factor * width)), max(_MIN_SIZE, round(factor * height))
    first, second = (cv2.resize(g, size, interpolation=cv2.INTER_AREA) for g in (grey, other))
    is_large = max(height, width) > _LARGE_SIDE
    preset = cv2.DISOPTICAL_FLOW_PRESET_FAST if is_large else cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
    dense = cv2.DISOpticalFlow.create(preset)
    flow = dense.calc(first, second, np.zeros((*first.shape, 2), np.float32))
    flow = cv2.GaussianBlur(flow, (0, 0), _FLOW_BLUR * size[0])
    scale = np.diag([width / size[0], height / size[1]]).astype(np.float32)
    return np.asarray(cv2.transform(cv2.resize(flow, (width, height)), scale))
