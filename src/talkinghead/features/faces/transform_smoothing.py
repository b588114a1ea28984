"""Temporal smoothing of face alignment transforms and landmarks with a fixed lag."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from talkinghead.features.faces.alignment import NOSE_LINE, invert, transform_scale
from talkinghead.types import AVSpec, FloatArray

_SCALE_SIGMA_S = 0.4
_POSITION_SIGMA_S = 0.06
_PARABOLA_REGULARISATION = 0.02
_LAG_S = Fraction(1, 2)
_Array: TypeAlias = npt.NDArray[np.float64]


class _FixedLagSmoother(ABC):
    """Streaming smoother of vectors with a lag of half a second; NaN is a missing value."""

    def __init__(self, fps: Fraction) -> None:
        self.lag = max(1, int(_LAG_S * fps))
        self._states: deque[_Array] = deque(maxlen=2 * self.lag + 1)
        self._pending = 0

    def flush(self) -> list[FloatArray]:
        """Return the smoothed values of the remaining frames of a shot, and reset the state."""
        first = len(self._states) - self._pending
        rest = [self._smoothed(i) for i in range(first, len(self._states))]
        self._states.clear()
        self._pending = 0
        return rest

    def _push(self, state: _Array) -> list[FloatArray]:
        """Add a state, and return the smoothed value of `lag` frames earlier in a list."""
        self._states.append(state)
        self._pending += 1
        if self._pending <= self.lag:
            return []
        self._pending -= 1
        return [self._smoothed(len(self._states) - 1 - self.lag)]

    @abstractmethod
    def _smoothed(self, index: int) -> FloatArray:
        """Return the smoothed state at an index of the states."""


class TransformSmoother(_FixedLagSmoother):
    """Streaming smoother of similarity transforms with a lag of half a second.

    Centred Gaussian windows are used, truncated at the ends of a shot. The scale is averaged over
    about a second, as it is correlated with the mouth opening. Position and angle follow the head:
    a parabola is fitted to a fifth of a second, as a mean would flatten nods. Frames without a face
    have no weight and are filled in. As the lag is fixed, a stream gives the same transforms as a
    file.

    Paper: Cleveland, "Robust Locally Weighted Regression and Smoothing Scatterplots", 1979.
    """

    def __init__(self, fps: Fraction, spec: AVSpec) -> None:
        super().__init__(fps)
        self._centre = np.array([0.5, NOSE_LINE]) * spec.face_size
        self._sigmas = np.array([_SCALE_SIGMA_S, *3 * [_POSITION_SIGMA_S]]) * float(fps)

    def push(self, transform: FloatArray | None) -> list[FloatArray]:
        """Add the transform of a frame, and return a smoothed transform in a list.

        The smoothed transform is for the frame `lag` frames earlier. The list is empty during the
        first `lag` frames. `transform` is None for a frame without a face; the smoothed transform
        is NaN if no frame within the window has a face.
        """
        return self._push(self._to_state(transform))

    def _to_state(self, transform: FloatArray | None) -> _Array:
        """Return (log scale, angle, x, y), where (x, y) is the nose base in the source image.

        With this point as the origin, smoothing the scale does not move the nose.
        """
        if transform is None:
            return np.full(4, np.nan)
        x, y = invert(transform).astype(np.float64) @ np.array([*self._centre, 1.0])
        angle = np.arctan2(transform[1, 0], transform[0, 0])
        previous = next((s[1] for s in reversed(self._states) if not np.isnan(s[1])), angle)
        angle += 2 * np.pi * np.round((previous - angle) / (2 * np.pi))
        return np.array([np.log(transform_scale(transform)), angle, x, y])

    def _smoothed(self, index: int) -> FloatArray:
        states = np.array(self._states)
        offsets = np.arange(len(states))[:, None] - index
        # The constant gives weight to distant frames if no near frame has a face.
        kernel = (np.exp(-0.5 * (offsets / self._sigmas) ** 2) + 1e-12) * (abs(offsets) <= self.lag)
        weights = kernel * ~np.isnan(states)
        total = weights.sum(0)
        if not total.all():
            return np.full((2, 3), np.nan, dtype=np.float32)
        log_scale, angle, x, y = np.nansum(weights * np.nan_to_num(states), 0) / total
        if not np.isnan(states[index, 0]):
            times = offsets[:, 0] / self._sigmas[1]
            angle, x, y = _fit_parabola(times, weights[:, 1], states[:, 1:])
        a, b = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
        linear = np.array([[a, -b], [b, a]])
        return np.hstack([linear, (self._centre - linear @ [x, y])[:, None]]).astype(np.float32)


class LandmarkSmoother(_FixedLagSmoother):
    """Streaming smoother of the landmarks of a face, as `TransformSmoother` smooths positions."""

    def __init__(self, fps: Fraction) -> None:
        super().__init__(fps)
        self._sigma = _POSITION_SIGMA_S * float(fps)

    def push(self, landmarks: FloatArray | None) -> list[FloatArray]:
        """Add the landmarks [P, C] of a frame, and return smoothed landmarks in a list.

        They are for the frame `lag` frames earlier, and NaN if that frame has no face, which is
        None. The number of landmarks must not change before `flush`.
        """
        return self._push(np.full((1, 1), np.nan) if landmarks is None else landmarks.astype(float))

    def _smoothed(self, index: int) -> FloatArray:
        middle = self._states[index]
        if np.isnan(middle).any():
            return np.full_like(middle, np.nan, dtype=np.float32)
        reach = int(4 * self._sigma) + 1
        near = [
            i
            for i in range(max(0, index - reach), min(len(self._states), index + reach + 1))
            if self._states[i].shape == middle.shape
        ]
        times = (np.array(near) - index) / self._sigma
        values = np.stack([self._states[i].ravel() for i in near])
        fitted = _fit_parabola(times, np.exp(-0.5 * times**2), values)
        return fitted.reshape(middle.shape).astype(np.float32)


def _fit_parabola(offsets: _Array, weights: _Array, values: _Array) -> _Array:
    """Fit a parabola to weighted values [n, k], and return its value [k] at offset 0.

    Slope and curvature are regularised, so that the result for few values is close to
    their mean.
    """
    powers = np.vander(offsets, 3, increasing=True)
    weighted = powers.T * weights
    normal = weighted @ powers + np.diag([0, 1, 1]) * _PARABOLA_REGULARISATION * weights.sum()
    middle = values[weights.argmax()]
    deviation = np.nan_to_num(values - middle)
    return np.asarray(middle + np.linalg.solve(normal, weighted @ deviation)[0])


def smooth_transforms(
    transforms: FloatArray, fps: Fraction, spec: AVSpec, cuts: Collection[int] = ()
) -> FloatArray:
    """Smooth the transforms [T, 2, 3] of a clip; a `TransformSmoother` is reset at each cut.

    Transforms are NaN where no face was found. Smoothed transforms are NaN where no frame within
    half a second has a face. `cuts` are the first frames of new shots.
    """
    smoother = TransformSmoother(fps, spec)
    smoothed: list[FloatArray] = []
    for frame, transform in enumerate(transforms):
        if frame in cuts:
            smoothed += smoother.flush()
        smoothed += smoother.push(None if np.isnan(transform).any() else transform)
    smoothed += smoother.flush()
    return np.stack(smoothed)


def fill_gaps(transforms: FloatArray, edges: list[int]) -> FloatArray:
    """Replace NaN by linear interpolation within a shot, or from other shots if all are NaN.

    Args:
        transforms: float32 [num_frames, 2, 3], NaN where the face was not found.
        edges: The first frame of each shot, and the number of frames.
    """
    known = np.isfinite(transforms[:, 0, 0])
    filled = transforms.copy()
    for start, stop in pairwise(edges):
        shot = slice(start, stop) if known[start:stop].any() else slice(None)
        frames, times = np.arange(len(known))[shot][known[shot]], np.arange(start, stop)
        # The linear interpolation of two similarity transforms is a similarity transform.
        columns = [np.interp(times, frames, c) for c in transforms[frames].reshape(-1, 6).T]
        filled[start:stop] = np.stack(columns, axis=1).reshape(-1, 2, 3)
    return filled
