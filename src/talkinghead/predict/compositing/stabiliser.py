"""Temporal smoothing of the generated mouth, which reduces jitter.

The filters are causal and process one frame at a time, so a stream and a file give the same frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from talkinghead.types import FloatArray

_MIN_CUTOFF_HZ = 5.0
# Speed coefficients of the filters, which depend on the units of the fields.
_SPEED_COEFFICIENTS = {"flow": 100.0, "rgb": 40.0, "mask": 40.0, "sides": 100.0, "lips": 100.0}


@dataclass(frozen=True)
class MouthFields:
    """Output of the generator for one mouth, covering the mouth box.

    Attributes:
        flow: (x, y) displacements in sides of the box, float32 [h, w, 2]: each position takes the
            reference's texture from this distance away.
        rgb: float32 [H, W, 3] in [0, 1].
        mask: blend weight of `rgb` against the warped texture, float32 [H, W] in [0, 1].
        sides: the displacements on the side of the upper and of the lower lip, float32 [h, w, 4],
            for a sharp change at closed lips; None: only `flow` is used.
        lips: landmarks of the lips in sides of the box, float32 [20, 2]; None without `sides`.
    """

    flow: FloatArray
    rgb: FloatArray
    mask: FloatArray
    sides: FloatArray | None = None
    lips: FloatArray | None = None


class OneEuroFilter:
    """A One Euro filter: a low-pass filter whose cut-off frequency rises with the input's speed.

    The speed is that of the whole field instead of each element, so all elements of a field have
    the same delay.

    Args:
        min_cutoff_hz: cut-off frequency at rest.
        speed_coefficient: increase of the cut-off frequency per unit of RMS speed.

    Paper: Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy
        Input", CHI 2012.
    """

    def __init__(self, min_cutoff_hz: float, speed_coefficient: float = 0.0) -> None:
        self.min_cutoff_hz = min_cutoff_hz
        self.speed_coefficient = speed_coefficient
        self.reset()

    def reset(self) -> None:
        """Clear the state, so that the next value is returned unchanged."""
        self._previous: npt.NDArray[np.float32] | None = None
        self._time_s = 0.0

    def __call__(self, value: FloatArray, time_s: float) -> FloatArray:
        """Return the filtered value, or the unchanged value if `time_s` has not increased."""
        elapsed_s = time_s - self._time_s
        self._time_s = time_s
        if self._previous is None or self._previous.shape != value.shape or elapsed_s <= 0:
            self._previous = value
            return value
        change = value - self._previous
        speed = math.sqrt(float(np.mean(np.square(change)))) / elapsed_s
        cutoff_hz = self.min_cutoff_hz + self.speed_coefficient * speed
        weight = 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff_hz * elapsed_s))
        self._previous = self._previous + np.float32(weight) * change
        return self._previous


class MouthStabiliser:
    """One-Euro filters for the fields of consecutive frames."""

    def __init__(self) -> None:
        self._filters = {
            name: OneEuroFilter(_MIN_CUTOFF_HZ, speed_coefficient)
            for name, speed_coefficient in _SPEED_COEFFICIENTS.items()
        }

    def reset(self) -> None:
        """Clear the state; call this method at cuts."""
        for one_euro in self._filters.values():
            one_euro.reset()

    def __call__(self, fields: MouthFields, time_s: float) -> MouthFields:
        """Return the smoothed fields of the frame at `time_s`."""
        known = {name: value for name, value in vars(fields).items() if value is not None}
        return MouthFields(**{n: self._filters[n](value, time_s) for n, value in known.items()})
