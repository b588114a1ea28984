"""Estimate how the light on a face differs between the reference and a frame.

The texture of the mouth comes from the reference. If the light changes (a fade, a lamp that is
switched on, coloured light), the texture must be adapted to each frame, without a delay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.media.decoding.video_image import ImageLike, sample_affine
from talkinghead.predict.compositing.mouth_region import Texture
from talkinghead.types import FloatArray, UInt8Array

_Floats = npt.NDArray[np.float64]

# Grid over the face from the forehead to the lips, in box units.
_X, _Y = (0.02, 0.98), (-0.55, 0.8)
_COLUMNS, _ROWS, _SAMPLES_PER_CELL = 18, 26, 4
# Weight of the cells around the mouth, which speech and objects change.
_LOWER_FACE_Y, _LOWER_FACE_WEIGHT = 0.3, 0.3
_NUM_ITERATIONS = 3
# Median difference of the cells, in levels, below which the light is the same.
_SAME_LIGHT = 2.0
# Standard deviation of colours, in levels, below which the mixing of channels is not estimated.
_MIN_DEVIATION = 2.5
# Number of parts of the face in which errors due to local light are independent.
_NUM_LIGHTS = 10
# Correlations between which the weight of the measured contrast of a channel rises from 0 to 1.
_CORRELATIONS = (0.3, 0.7)
# Ratios of the errors with and without a fit between which the weight of the fit falls to 0.
_ERROR_RATIOS = (0.5, 0.8)
_MAX_GAIN, _MAX_LOG_SLOPE = 4.0, 1.5
# Light with borders, such as a shadow or a flare: standard deviations in cells of the smoothing,
# each fills the gaps of the one before, and maximum logarithmic brightness.
_LOCAL_SIGMAS, _MAX_LOCAL = (1.7, 4.0, 9.0), 1.0
# Root mean squares of the local logarithmic brightness between which its weight rises to 1: smaller
# changes are those of a turned head.
_LOCAL_DEVIATIONS = (0.12, 0.2)
# Difference of the logarithmic colour ratios above which a cell rather shows an object.
_OBJECT_RATIO = 0.15
# Ellipse of the lips, which speech changes: centre and radii in box units.
_LIPS_CENTRE, _LIPS_RADII = (0.5, 0.48), (0.3, 0.25)


@dataclass(frozen=True)
class LightChange:
    """Change of the colours of a face between two images.

    Attributes:
        colours: affine map of RGB levels, float32 [3, 4].
        log_slope: increase of the logarithmic brightness per box unit in x and y, float32 [2].
        local: additional logarithmic brightness of the cells of a grid over the face, for light
            with borders, float32 [rows, columns]; None for none.
    """

    colours: FloatArray
    log_slope: FloatArray
    local: FloatArray | None = None

    @property
    def without_local(self) -> LightChange:
        """The change without the local brightness, which cannot be told from dark objects."""
        return replace(self, local=None)

    def apply(self, image: FloatArray, box_xy: FloatArray) -> FloatArray:
        """Return an image float32 [h, w, 3] in the changed light.

        `box_xy` are the positions of its pixels, float32 [h, w, 2].
        """
        relit = np.asarray(cv2.transform(image, self.colours), np.float32)
        if self.log_slope.any():
            relit *= np.exp((box_xy - _CENTRE) @ self.log_slope)[..., None]
        if self.local is not None:
            x, y = ((box_xy[..., i] - _CELLS_XY[0, 0, i]) / _CELL_SIDES[i] for i in (0, 1))
            local = cv2.remap(self.local, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            relit *= np.exp(local)[..., None]
        return relit

    def apply_colours(self, image: UInt8Array) -> UInt8Array:
        """Return an image uint8 [h, w, 3] with changed colours, without the slope."""
        return np.asarray(cv2.transform(image, self.colours), np.uint8)


def _grid() -> FloatArray:
    """Return the positions of the cells in box units, float32 [rows, columns, 2]."""
    x, y = (
        low + (high - low) * (np.arange(count) + 0.5) / count
        for (low, high), count in ((_X, _COLUMNS), (_Y, _ROWS))
    )
    return np.stack(np.meshgrid(x, y), -1).astype(np.float32)


_CELLS_XY = _grid()
_CELL_SIDES = _CELLS_XY[1, 1] - _CELLS_XY[0, 0]
_CENTRE: FloatArray = np.array([0.5, 0.5], np.float32)
_OFFSETS = np.column_stack([_CELLS_XY.reshape(-1, 2) - _CENTRE, np.ones(_ROWS * _COLUMNS)])


def _prior_weights() -> _Floats:
    """Return the weights of the cells before any image is known, float64 [cells]."""
    x, y = _CELLS_XY[..., 0] - 0.5, _CELLS_XY[..., 1]
    # An ellipse, beyond which there may be hair or background.
    inside = np.hypot(x / 0.5, (y - 0.1) / 0.75) < 1
    weights = np.where(y > _LOWER_FACE_Y, _LOWER_FACE_WEIGHT, 1.0) * inside
    return np.asarray(weights.ravel(), np.float64)


_PRIOR_WEIGHTS = _prior_weights()
_FACE = _PRIOR_WEIGHTS > 0
_OUTSIDE_LIPS = np.linalg.norm((_CELLS_XY - _LIPS_CENTRE) / _LIPS_RADII, axis=-1).ravel() > 1


class LightMatcher:
    """A callable that returns the change of the light from the reference to a frame."""

    def __init__(self) -> None:
        self._texture: Texture | None = None
        self._reference: _Floats = np.zeros((0, 3))

    def __call__(
        self, image: ImageLike, box_to_image: FloatArray, reference: Texture
    ) -> LightChange | None:
        """Return the change of the light, or None if there is none.

        Args:
            image: the frame.
            box_to_image: position of the mouth box in the frame.
            reference: the reference.
        """
        if image is reference.image:
            return None
        if reference is not self._texture:
            self._texture = reference
            self._reference = _cells(reference.image, reference.box_to_image)
        return estimate_light_change(self._reference, _cells(image, box_to_image))


def estimate_light_change(reference: _Floats, frame: _Floats) -> LightChange | None:
    """Estimate the change between the cell colours [cells, 3] of two images of a face.

    The weights of cells that the estimate does not explain, such as those of a hand, are reduced
    (iteratively reweighted least squares).
    """
    if float(np.median(np.abs(frame - reference)[_FACE])) < _SAME_LIGHT:
        return None
    change = _estimate_even_change(reference, frame)
    if _fit_local(reference if change is None else _relit(change, reference), frame) is None:
        return change
    # Start again without the colours, which were estimated from cells in different light.
    gains = np.median((frame[_FACE] + 1) / (reference[_FACE] + 1), axis=0)
    local = _fit_local(gains * reference, frame)
    if local is None:
        return change
    brightness = np.exp(local.reshape(-1, 1).astype(np.float64))
    change = _estimate_even_change(reference, frame / brightness)
    local = _fit_local(reference if change is None else _relit(change, reference), frame)
    none = LightChange(np.eye(3, 4, dtype=np.float32), np.zeros(2, np.float32))
    return replace(change or none, local=local)


def _estimate_even_change(reference: _Floats, frame: _Floats) -> LightChange | None:
    """Estimate the change of the colours and the slope of the brightness."""
    weights = _PRIOR_WEIGHTS
    for _ in range(_NUM_ITERATIONS):
        colours, fitted = _fit_colours(reference, frame, weights)
        errors = np.linalg.norm(frame - fitted, axis=1)
        scale = 1.5 * np.median(errors[_FACE]) + 1
        weights = _PRIOR_WEIGHTS / (1 + np.square(errors / scale))
    fit_weight = _fit_weight(frame - reference, frame - fitted, weights)
    log_slope = _fit_slope(fitted, frame, weights)
    if fit_weight == 0 and not log_slope.any():
        return None
    identity = np.eye(3, 4)
    mixed = identity + fit_weight * (colours - identity)
    return LightChange(mixed.astype(np.float32), log_slope.astype(np.float32))


def _relit(change: LightChange, cells: _Floats) -> _Floats:
    image = cells.reshape(_ROWS, _COLUMNS, 3).astype(np.float32)
    return change.apply(image, _CELLS_XY).reshape(-1, 3).astype(np.float64)


def _fit_local(fitted: _Floats, frame: _Floats) -> FloatArray | None:
    """Return the local logarithmic brightness [rows, columns] between cells; None for none.

    Objects in front of the face, which have other colours, and the lips are left out.
    """
    logs = [np.log(cells.clip(0) + 4) for cells in (fitted, frame)]
    difference = logs[1] - logs[0]
    ratio = difference.mean(1)
    foreign = np.abs(difference - ratio[:, None]).max(1) / _OBJECT_RATIO
    weights = _FACE * _OUTSIDE_LIPS / (1 + foreign**8)
    local = np.zeros((_ROWS, _COLUMNS))
    for sigma in reversed(_LOCAL_SIGMAS):
        known, weight = (
            cv2.GaussianBlur(values.reshape(_ROWS, _COLUMNS), (0, 0), sigma)
            for values in (weights * ratio, weights)
        )
        confidence = weight / (weight + 0.05)
        local += confidence * (known / (weight + 1e-6) - local)
    flat = local.ravel()
    deviation = float(np.sqrt(weights @ flat**2 / max(weights.sum(), 1e-6)))
    weight = float(np.interp(deviation, _LOCAL_DEVIATIONS, (0, 1)))
    weight *= _fit_weight(ratio[:, None], (ratio - flat)[:, None], weights)
    if weight == 0:
        return None
    return (weight * local.clip(-_MAX_LOCAL, _MAX_LOCAL)).astype(np.float32)


def _fit_colours(reference: _Floats, frame: _Floats, weights: _Floats) -> tuple[_Floats, _Floats]:
    """Fit an affine map [3, 4] of colours, and return it with the mapped reference [cells, 3].

    The map scales each channel and mixes the channels as far as the colours of the face show how.
    Errors of the alignment reduce the slope of a regression. The ratio of the standard deviations,
    which is not reduced, is used instead where the channels correlate.
    """
    normalised = weights / weights.sum()
    mean_r, mean_f = normalised @ reference, normalised @ frame
    r, f = reference - mean_r, frame - mean_f
    var_r, var_f, covariance = (normalised @ product for product in (r * r, f * f, r * f))
    correlation = covariance / np.sqrt(var_r * var_f + 1e-6)
    confidence = np.interp(correlation, _CORRELATIONS, (0, 1))
    gain = np.minimum((mean_f + 1) / (mean_r + 1), _MAX_GAIN)
    noise = _MIN_DEVIATION**2
    deviations = np.minimum(np.sqrt((var_f + 1e-3) / (var_r + 1e-3)), _MAX_GAIN)
    regression = gain + confidence * ((covariance + noise * gain) / (var_r + noise) - gain)
    rest = f - regression * r
    products, power = (rest.T * normalised) @ r, (r.T * normalised) @ r
    mixing = products @ np.linalg.inv(power + noise * np.eye(3))
    # Shadows and lamps, which change adjacent cells alike, may look like a mixing.
    noise += float(normalised @ np.square(rest - r @ mixing.T).sum(1)) / _NUM_LIGHTS
    mixing = products @ np.linalg.inv(power + noise * np.eye(3))
    fitted = mean_f + regression * r + r @ mixing.T
    linear = np.diag(gain + confidence * (deviations - gain)) + mixing
    return np.column_stack([linear, mean_f - linear @ mean_r]), fitted


def _fit_slope(fitted: _Floats, frame: _Floats, weights: _Floats) -> _Floats:
    """Return the slope [2] of the logarithmic brightness that the map of colours leaves."""
    ratio = np.log((frame.mean(1) + 4) / (fitted.mean(1).clip(0) + 4)).clip(-1.5, 1.5)
    weighted = _OFFSETS.T * weights
    normal = weighted @ _OFFSETS + 0.02 * weights.sum() * np.diag([1, 1, 0])
    plane = np.linalg.solve(normal, weighted @ ratio)
    fit_weight = _fit_weight(ratio[:, None], (ratio - _OFFSETS @ plane)[:, None], weights)
    return np.asarray(fit_weight * plane[:2].clip(-_MAX_LOG_SLOPE, _MAX_LOG_SLOPE))


def _fit_weight(before: _Floats, after: _Floats, weights: _Floats) -> float:
    """Return the weight of a fit, 0 to 1, from the errors [cells, C] before and after it."""
    errors = [float(weights @ np.square(error).sum(1)) for error in (before, after)]
    ratio = np.sqrt(errors[1] / max(errors[0], 1e-9))
    return float(np.interp(ratio, _ERROR_RATIOS, (1, 0)))


def _cells(image: ImageLike, box_to_image: FloatArray) -> _Floats:
    """Return the mean colours of the cells, float64 [cells, 3]."""
    width, height = _SAMPLES_PER_CELL * _COLUMNS, _SAMPLES_PER_CELL * _ROWS
    size = np.array([(_X[1] - _X[0]) / width, (_Y[1] - _Y[0]) / height])
    linear = box_to_image[:, :2].astype(np.float64)
    corner = linear @ (np.array([_X[0], _Y[0]]) + size / 2) + box_to_image[:, 2]
    to_image = np.column_stack([linear * size, corner])
    samples = sample_affine(image, to_image, (width, height))
    cells = cv2.resize(samples, (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA)
    return cells.reshape(-1, 3).astype(np.float64)
