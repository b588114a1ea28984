"""Blur a generated mouth as much as its face is blurred.

A video may be out of focus, and motion blurs single frames. The blur is measured at the eyes, the
brows and the nose, which the generator does not change.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from talkinghead.media.decoding.video_image import ImageLike, image_around
from talkinghead.predict.compositing.mouth_region import NO_BLUR, MouthBlur, Texture
from talkinghead.predict.compositing.stabiliser import OneEuroFilter
from talkinghead.types import FloatArray

# Area of the eyes, brows and nose in box units, and its samples per box unit.
_X, _Y = (0.08, 0.92), (-0.45, 0.22)
_SAMPLES = 144
# Standard deviation in samples of a known second blur. Its effect on the slopes of the edges gives
# the blur of the image.
_PROBE_SIGMA = 3.0
# Number of samples that count as edges, and their minimum slope.
_NUM_EDGES, _MIN_SLOPE = 480, 1.0
# Percentile of the sharpness at the edges; not the mean, because shadows are always soft.
_PERCENTILE = 70
# Widths of edges as standard deviations in samples: of the model's RGB, and the range of widths in
# the face in which the blur of this RGB increases from 0 (2.75 was measured in sharp images). Ratio
# of the widths in a frame and in its reference up to which the reference's texture is not blurred.
_RGB_SIGMA, _BLURRED_SIGMA, _TOLERANCE = 1.2, (2.8, 3.5), 1.2
_MIN_CUTOFF_HZ, _SPEED_COEFFICIENT = 2.0, 1.0


class BlurMatcher:
    """A callable that returns the blur that a mouth needs to match its face."""

    def __init__(self) -> None:
        self._filter = OneEuroFilter(_MIN_CUTOFF_HZ, _SPEED_COEFFICIENT)
        self._texture: Texture | None = None
        self._reference_sigma: FloatArray = np.zeros(2, np.float32)

    def reset(self) -> None:
        """Clear temporal state."""
        self._filter.reset()

    def __call__(
        self, image: ImageLike, box_to_image: FloatArray, reference: Texture, time_s: float
    ) -> MouthBlur:
        """Return the blur of the mouth in a frame.

        Args:
            image: the frame.
            box_to_image: position of the mouth box in the frame.
            reference: the reference.
            time_s: time of the frame.
        """
        if reference is not self._texture:
            self._texture = reference
            self._reference_sigma = edge_sigma(reference.image, reference.box_to_image)
        sigma = self._reference_sigma
        if image is not reference.image:
            sigma = edge_sigma(image, box_to_image)
        sigma = self._filter(sigma, time_s)
        if not (sigma.all() and self._reference_sigma.all()):
            return NO_BLUR
        sample_px = math.hypot(*box_to_image[:, 0]) / _SAMPLES
        texture = _added_sigma(sigma, _TOLERANCE * self._reference_sigma)
        rgb = np.interp(sigma, _BLURRED_SIGMA, (0, 1)) * _added_sigma(sigma, _RGB_SIGMA)
        (texture_x, texture_y), (rgb_x, rgb_y) = texture * sample_px, rgb * sample_px
        return MouthBlur((float(texture_x), float(texture_y)), (float(rgb_x), float(rgb_y)))


def edge_sigma(image: ImageLike, box_to_image: FloatArray) -> FloatArray:
    """Return the blur of a face's edges across and along the face, float32 [2].

    The blur is its standard deviation in samples, 0 where there are no edges.

    Paper: Zhuo and Sim, "Defocus Map Estimation from a Single Image", Pattern Recognition 2011.
    """
    grey = _face_samples(image, box_to_image)
    blurred = cv2.GaussianBlur(grey, (0, 0), _PROBE_SIGMA)
    sigmas = []
    for axis in ((1, 0), (0, 1)):
        slopes, blurred_slopes = (np.abs(cv2.Sobel(g, cv2.CV_32F, *axis)) for g in (grey, blurred))
        least = np.partition(blurred_slopes, -_NUM_EDGES, axis=None)[-_NUM_EDGES]
        edges = blurred_slopes >= max(least, _MIN_SLOPE)
        if not edges.any():
            sigmas.append(0.0)
            continue
        ratio = float(np.percentile(slopes[edges] / blurred_slopes[edges], _PERCENTILE))
        sigmas.append(_PROBE_SIGMA / math.sqrt(max(ratio * ratio - 1, 1e-2)))
    return np.array(sigmas, np.float32)


def _added_sigma(total: FloatArray, present: FloatArray | float) -> FloatArray:
    return np.asarray(np.sqrt(np.maximum(total * total - present * present, 0)), np.float32)


def _face_samples(image: ImageLike, box_to_image: FloatArray) -> FloatArray:
    """Return the grey levels of the area of the eyes, float32 [rows, columns]."""
    linear = box_to_image[:, :2].astype(np.float64) / _SAMPLES
    offset = box_to_image[:, :2] @ [_X[0], _Y[0]] + box_to_image[:, 2] + linear @ [0.5, 0.5]
    to_image = np.column_stack([linear, offset])
    size = round((_X[1] - _X[0]) * _SAMPLES), round((_Y[1] - _Y[0]) * _SAMPLES)
    grid = np.array([(x, y, 1) for x in (0, size[0]) for y in (0, size[1])])
    image, to_part = image_around(image, grid @ to_image.T, math.hypot(*linear[:, 0]))
    to_image = np.column_stack([to_part[:, :2] @ to_image[:, :2], to_part @ [*to_image[:, 2], 1]])
    corners, limits = grid @ to_image.T, image.shape[1::-1]
    x0, y0 = np.clip(np.floor(corners.min(0)) - 2, 0, np.array(limits) - 1).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(0)) + 2, [x0 + 1, y0 + 1], limits).astype(int)
    part = cv2.cvtColor(image[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY)
    to_image[:, 2] -= x0, y0
    factor = int(math.hypot(*to_image[:, 0]) + 0.5)
    if factor >= 2:  # Average pixels first, as bilinear sampling would ignore some of them.
        shape = max(1, part.shape[1] // factor), max(1, part.shape[0] // factor)
        part = cv2.resize(part, shape, interpolation=cv2.INTER_AREA)
        to_image = to_image / factor
        to_image[:, 2] += 0.5 / factor - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE
    samples = cv2.warpAffine(part, to_image, size, flags=flags, borderMode=border)
    return np.asarray(samples, np.float32)
