"""Recognise mouths that are covered, by a medical mask, a microphone or a cup for example.

A single image is used, so an object that covers the mouth throughout a video is recognised too.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.media.decoding.video_image import ImageLike, sample_affine
from talkinghead.types import AVSpec, FloatArray, UInt8Array

# Grid over the face in units of the mouth box, from the forehead to the chin.
_X, _Y = (0.04, 0.96), (-0.64, 0.88)
_COLUMNS, _ROWS, _SAMPLES_PER_CELL = 23, 38, 3
# Offset added to every channel, because noise dominates the colour ratios of nearly black pixels.
_OFFSET = 16.0
_LUMINANCE = np.array([0.30, 0.59, 0.11])
# Cells of the forehead, of the cheeks below the eyes, and around the mouth: x0, y0, x1, y1.
_FOREHEAD, _CHEEKS, _NOSE = (0.28, -0.6, 0.72, -0.36), (0.14, -0.06, 0.86, 0.12), (0.36, 0.64)
_MOUTH, _LIPS = (0.24, 0.24, 0.76, 0.74), (0.28, 0.3, 0.72, 0.68)
# Limits of the differences from the skin, in natural logarithms: a larger difference of the colour
# ratios, or a darker luminance, is not skin; lips are redder than skin by at most the second limit.
_FOREIGN, _REDDER, _DARKER = 0.2, 0.45, 1.1
# Minimum difference between uncovered lips and the area around them.
_LIP_CONTRAST = 0.05
_COVERED_FRACTION = 0.7
# Range of the logarithmic luminance along the columns of the mouth, below which no line between
# lips is visible: absolute, and relative to that of the eyes. It is not visible in a blurred image,
# in which the upper face has a smaller ratio of contrast to standard deviation. Measured on images
# of 15 persons: from 0.24 and 0.37; with drawn masks of the colour of the skin up to 0.09 and 0.34.
_MIN_LINE, _MIN_RELATIVE_LINE, _MIN_SHARPNESS = 0.12, 0.33, 0.27
# Rows of the eyes in units of the mouth box.
_EYE_ROWS = (-0.64, -0.08)


class MouthVisibility(NamedTuple):
    """Measurements of the visibility of the mouth in an image.

    Attributes:
        covering: fraction of the generated area whose colour is not that of the skin; a
            beard counts too.
        is_covered: whether an object hides the mouth.
        contrast: root mean square of the differences of adjacent samples of the upper face, in
            levels; small in a dark or blurred image.
        colours: logarithmic colours of the generated area without the lips, in the light of the
            whole area, float32 [cells, 3].
    """

    covering: float
    is_covered: bool
    contrast: float
    colours: FloatArray


def _cell_centres() -> FloatArray:
    x, y = (
        low + (high - low) * (np.arange(count) + 0.5) / count
        for (low, high), count in ((_X, _COLUMNS), (_Y, _ROWS))
    )
    return np.stack(np.meshgrid(x, y), -1).astype(np.float32)


_XY = _cell_centres()
_UPPER_ROWS = int((_XY[:, 0, 1] < 0.2).sum())


def _inside(box: tuple[float, float, float, float]) -> npt.NDArray[np.bool_]:
    x0, y0, x1, y1 = box
    x, y = _XY[..., 0], _XY[..., 1]
    return np.asarray((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))


_FOREHEAD_CELLS, _MOUTH_CELLS = _inside(_FOREHEAD), _inside(_MOUTH)
# The generated part of the face, with a margin at its sides.
_GENERATED_CELLS = np.linalg.norm((_XY - (0.5, 0.5)) / (0.48, 0.45), axis=-1) < 1
_CHEEK_CELLS = _inside(_CHEEKS) & ~((_XY[..., 0] > _NOSE[0]) & (_XY[..., 0] < _NOSE[1]))

_STILL_CELLS = _GENERATED_CELLS & ~_inside(_LIPS)
# Differences of colour ratios and of luminance, in natural logarithms, above which a cell shows an
# object.
_OBJECT_COLOUR, _OBJECT_LUMINANCE = 0.12, 0.35


def outlier_fraction(colours: FloatArray, usual: FloatArray) -> float:
    """Return the fraction of cells whose colours [cells, 3] differ from the usual ones."""
    red, blue, light = np.abs(colours - usual).T
    return float(((np.hypot(red, blue) > _OBJECT_COLOUR) | (light > _OBJECT_LUMINANCE)).mean())


def measure_visibility(
    image: ImageLike, transform: FloatArray, lips: FloatArray, spec: AVSpec
) -> MouthVisibility:
    """Measure how well an image shows the mouth.

    Colours around the mouth are compared with those of the forehead and the cheeks. A mouth counts
    as covered if the area around it has another colour and the lips have no contrast to that area,
    or not the colour of lips. In a beard they have. It is also covered if there is no line between
    the lips, as on a mask that has the colour of the skin.

    Args:
        image: the image.
        transform: from image pixels to the canonical face.
        lips: lip landmarks in image pixels, [20, 2] (see `lip_points`).
        spec: the AVSpec of the canonical face.
    """
    samples, to_cells = _sample_face(image, transform, spec)
    contrast, colours = _contrast(samples), _cell_colours(samples)
    skin = _skin_colour(colours)
    difference = colours - skin
    red, blue, light = (difference[..., i] for i in range(3))
    outline = lips[:12] @ to_cells[:, :2].T + to_cells[:, 2]
    inner = np.zeros(colours.shape[:2], np.uint8)
    cv2.fillConvexPoly(inner, cv2.convexHull(np.rint(outline).astype(np.int32)), 1)
    near = cv2.dilate(inner, np.ones((7, 9), np.uint8))
    is_lip_red = (red > 0) & (red < _REDDER) & (np.abs(blue) < _FOREIGN + red) & (near > 0)
    is_foreign = (np.hypot(red, blue) > _FOREIGN) & ~is_lip_red | (light < -_DARKER)
    relit = colours[_STILL_CELLS] - np.median(colours[_STILL_CELLS], 0)
    covering, around = float(is_foreign[_GENERATED_CELLS].mean()), near > inner
    surroundings = is_foreign[_MOUTH_CELLS & (near == 0)]
    is_free = surroundings.sum() <= _COVERED_FRACTION * len(surroundings)
    # Below a short chin, the surroundings are the neck and clothes.
    is_free |= bool(inner.any()) and is_foreign[inner > 0].mean() < 1 - _COVERED_FRACTION
    if is_free or not inner.any() or not around.any():
        is_hidden = bool(inner.any()) and not _shows_lips(samples, outline, contrast)
        return MouthVisibility(covering, is_hidden, contrast, relit)
    lip_contrast = np.median(colours[inner > 0], 0) - np.median(colours[around], 0)
    # Folds and shadows change the luminance of cloth more than its colour.
    lip_contrast[2] /= 4
    is_covered = bool(np.abs(lip_contrast).max() < _LIP_CONTRAST)
    # The landmarks may be at the edge of a mask, which has a contrast, but nothing red inside.
    if lip_contrast[0] < 0 and is_foreign[inner > 0].mean() > _COVERED_FRACTION:
        is_covered = True
    return MouthVisibility(covering, is_covered, contrast, relit)


def _shows_lips(samples: UInt8Array, outline: npt.NDArray[np.floating], contrast: float) -> bool:
    """Return whether a line between lips is visible, or the image is too blurred to tell.

    `outline` are the lips in cells, [12, 2].
    """
    x, y, width, height = cv2.boundingRect((_SAMPLES_PER_CELL * (outline + 0.5)).astype(np.float32))
    rows = slice(max(0, y - height // 3), max(0, y + height + height // 3))
    columns = slice(max(0, x + width // 4), max(0, x + 3 * width // 4))
    grey = samples.astype(np.float32) @ _LUMINANCE.astype(np.float32)
    logs = cv2.GaussianBlur(np.log(grey + _OFFSET), (0, 0), 1.0)
    mouth = logs[rows, columns]
    if min(mouth.shape) < _SAMPLES_PER_CELL:
        return True
    line = float(np.median(np.ptp(mouth, axis=0)))
    upper = grey[: _UPPER_ROWS * _SAMPLES_PER_CELL]
    if line >= _MIN_LINE or contrast < _MIN_SHARPNESS * float(upper.std()):
        return True
    first, last = (round((y - _Y[0]) / (_Y[1] - _Y[0]) * len(logs)) for y in _EYE_ROWS)
    low, high = np.percentile(logs[first:last], (5, 95), axis=0)
    return line >= _MIN_RELATIVE_LINE * float(np.median(high - low))


def _skin_colour(colours: FloatArray) -> FloatArray:
    """Return the colour of the skin: of the forehead or the cheeks, whichever is redder.

    The forehead may be below hair, and the cheeks below a mask.
    """
    forehead, cheeks = (np.median(colours[c], 0) for c in (_FOREHEAD_CELLS, _CHEEK_CELLS))
    return np.asarray(forehead if forehead[0] > cheeks[0] else cheeks)


def _contrast(samples: UInt8Array) -> float:
    grey = samples[: _UPPER_ROWS * _SAMPLES_PER_CELL].astype(np.float32).mean(-1)
    squares = (float(np.square(np.diff(grey, axis=axis)).mean()) for axis in (0, 1))
    return float(np.sqrt(sum(squares)))


def _cell_colours(samples: UInt8Array) -> FloatArray:
    """Return log(red / green), log(blue / green) and log luminance of the cells.

    The result is float32 [rows, columns, 3].
    """
    cells = cv2.resize(samples, (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA)
    levels = cells.astype(np.float32)
    logs = np.log(levels + _OFFSET)
    luminance = np.log(levels @ _LUMINANCE + _OFFSET)
    ratios = logs[..., [0, 2]] - logs[..., 1:2]
    return np.concatenate([ratios, luminance[..., None]], -1).astype(np.float32)


def _sample_face(
    image: ImageLike, transform: FloatArray, spec: AVSpec
) -> tuple[UInt8Array, npt.NDArray[np.float64]]:
    """Return samples of the face, and the map from image pixels to cells, float64 [2, 3].

    The samples are uint8 [rows * n, columns * n, 3] with n = `_SAMPLES_PER_CELL`.
    """
    side = spec.mouth_side
    cell_side = np.array([(_X[1] - _X[0]) / _COLUMNS, (_Y[1] - _Y[0]) / _ROWS]) * side
    corner = np.array([spec.mouth_x + _X[0] * side, spec.mouth_y + _Y[0] * side])
    to_cells: npt.NDArray[np.float64] = transform / cell_side[:, None]
    to_cells[:, 2] -= corner / cell_side + 0.5
    to_image = np.asarray(cv2.invertAffineTransform(to_cells), np.float64)
    factor = _SAMPLES_PER_CELL
    to_image[:, 2] += to_image[:, :2] @ np.full(2, 0.5 / factor - 0.5)
    to_image[:, :2] /= factor
    size = _COLUMNS * factor, _ROWS * factor
    return sample_affine(image, to_image, size), to_cells
