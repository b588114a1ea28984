"""Find burnt-in captions over the mouth, and remove them from references.

A caption must not move with the mouth, nor appear in other frames.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.media.decoding.video_image import ImageLike, sample_affine
from talkinghead.types import FloatArray, UInt8Array

BOX_SAMPLES = 128
"""Number of samples along a side of the mouth box."""
# Side in samples of the window that contains a stroke and its outline, and width in samples that a
# stroke does not reach.
_WINDOW, _MAX_STROKE = 7, 11
# Minimum levels: of the difference between a stroke and its outline, and of the stroke.
_MIN_RANGE, _MIN_BRIGHT = 140, 210
# Minimum level of a white stroke without an outline, and the maximum median level of blue: on
# brighter skin, white strokes are not detected.
_MIN_WHITE, _MAX_SKIN_BLUE = 235, 180
# Levels of a yellow, green or cyan stroke: minimum green, minimum difference of its channels,
# maximum of red minus green (skin has more), and minimum by which its red or its blue is below the
# median of the box.
_MIN_GREEN, _MIN_COLOUR, _MAX_RED, _MIN_LESS = 185, 70, 18, 30
# Minimum number of letters and of samples of a letter, and maximum mean deviation of the vertical
# positions of the letters in samples.
_MIN_LETTERS, _MIN_LETTER_SAMPLES, _MAX_LINE_DEVIATION = 4, 8, 16
# Ellipses of the lips with the teeth, and of the nostrils, in box units: centre and radii. They
# contain bright and dark areas without captions.
_FEATURES = (((0.5, 0.48), (0.32, 0.24)), ((0.5, 0.12), (0.26, 0.18)))
_INPAINT_RADIUS_PX = 3

_Mask = npt.NDArray[np.bool_]


def _expected() -> _Mask:
    """Return the samples in the ellipses of lips and nostrils, bool [128, 128]."""
    steps = (np.arange(BOX_SAMPLES) + 0.5) / BOX_SAMPLES
    xy = np.stack(np.meshgrid(steps, steps), -1)
    distances = [np.linalg.norm((xy - centre) / radii, axis=-1) for centre, radii in _FEATURES]
    return np.asarray(np.min(distances, 0) < 1)


_EXPECTED = _expected()


def sample_box(image: ImageLike, box_to_image: FloatArray) -> UInt8Array:
    """Sample the mouth box of an image: uint8 [128, 128, 3]."""
    return sample_affine(image, _samples_to_image(box_to_image), (BOX_SAMPLES, BOX_SAMPLES))


def find_overlay(box: UInt8Array) -> UInt8Array | None:
    """Return the samples of a mouth box that show a caption, or None without a caption.

    The box is uint8 [128, 128, 3], the mask uint8 [128, 128], 0 or 1. A caption is a line of
    letters with thin strokes, white ones with or without a dark outline, yellow, green or cyan ones
    with one, partly outside the lips and the nostrils.
    """
    green = box[..., 1]
    if np.count_nonzero(green > _MIN_GREEN) < _MIN_LETTERS * _MIN_LETTER_SAMPLES:
        return None
    window = np.ones((_WINDOW, _WINDOW), np.uint8)
    red, whiteness = box[..., 0].astype(int), box.min(-1)
    bright = whiteness > _MIN_BRIGHT
    is_coloured = (green > _MIN_GREEN) & (box.max(-1) - whiteness > _MIN_COLOUR)
    is_coloured &= red - green < _MAX_RED
    candidates = (bright | is_coloured).astype(np.uint8)
    if np.count_nonzero(candidates) < _MIN_LETTERS * _MIN_LETTER_SAMPLES:
        return None
    outline = cv2.erode(box.max(-1), window).astype(int)
    is_white = (whiteness > _MIN_WHITE) & (np.median(box[..., 2]) < _MAX_SKIN_BLUE)
    strokes = bright & ((whiteness - outline > _MIN_RANGE) | is_white)
    # Exclude highlights of the skin, whose red and blue are above the median.
    usual = np.median(box.reshape(-1, 3), axis=0)
    has_less = (box[..., 2] < usual[2] - _MIN_LESS) | (red < usual[0] - _MIN_LESS)
    strokes |= is_coloured & has_less & (green - outline > _MIN_RANGE)
    square = np.ones((_MAX_STROKE, _MAX_STROKE), np.uint8)
    strokes &= cv2.morphologyEx(candidates, cv2.MORPH_OPEN, square) == 0
    if not _is_line_of_letters(strokes & ~_EXPECTED):
        return None
    return np.asarray(cv2.dilate(strokes.astype(np.uint8), window))


def _is_line_of_letters(strokes: _Mask) -> bool:
    count, _, statistics, centres = cv2.connectedComponentsWithStats(strokes.astype(np.uint8))
    areas = statistics[1:, cv2.CC_STAT_AREA]
    heights = centres[1:, 1][areas >= _MIN_LETTER_SAMPLES]
    if count <= _MIN_LETTERS or len(heights) < _MIN_LETTERS:
        return False
    return float(np.abs(heights - np.median(heights)).mean()) < _MAX_LINE_DEVIATION


def remove_overlay(image: UInt8Array, box_to_image: FloatArray) -> UInt8Array:
    """Return an image without the caption over the mouth; the same image without a caption.

    Paper: Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004.
    """
    mask = find_overlay(sample_box(image, box_to_image))
    if mask is None:
        return image
    to_image = _samples_to_image(box_to_image)
    corners = np.array([(x, y, 1) for x in (0, BOX_SAMPLES) for y in (0, BOX_SAMPLES)]) @ to_image.T
    limits = np.array(image.shape[1::-1])
    (x0, y0), (x1, y1) = np.clip([corners.min(0), corners.max(0)], 0, limits).astype(int)
    if x1 <= x0 or y1 <= y0:
        return image
    to_part = to_image - [[0, 0, x0], [0, 0, y0]]
    strokes = cv2.warpAffine(mask, to_part, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_NEAREST)
    cleaned = image.copy()
    part = np.ascontiguousarray(image[y0:y1, x0:x1])
    cleaned[y0:y1, x0:x1] = cv2.inpaint(part, strokes, _INPAINT_RADIUS_PX, cv2.INPAINT_TELEA)
    return cleaned


def _samples_to_image(box_to_image: FloatArray) -> npt.NDArray[np.float64]:
    to_image: npt.NDArray[np.float64] = box_to_image / np.array([BOX_SAMPLES, BOX_SAMPLES, 1.0])
    to_image[:, 2] += to_image[:, :2] @ [0.5, 0.5]
    return to_image
