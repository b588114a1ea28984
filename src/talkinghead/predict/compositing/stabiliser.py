"""Temporal stabilisation: jitter is smoothed away, articulation is not.

Every filter is causal and works frame by frame, so that a stream gives what a file gives.

Shape suffixes: H and W rows and columns of a field, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from talkinghead.types import FloatArray


@dataclass(frozen=True)
class MouthFields:
    """What the generator says about one mouth, over the mouth's box.

    `flow` float32 [h, w, 2] are (x, y) displacements in sides of the box: where the reference's
    texture is to be taken from, relative to each place. `rgb` float32 [H, W, 3] in [0, 1]; `mask`
    float32 [H, W] in [0, 1], the share of `rgb`.
    """

    flow: FloatArray
    rgb: FloatArray
    mask: FloatArray


class OneEuroFilter:
    """An exponential filter that opens when its input moves: quick motion passes.

    The cut-off follows the whole field's speed rather than each element's, so that a field is never
    torn.

    Paper: Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy
        Input", CHI 2012.
    """

    def __init__(self, min_cutoff_hz: float, speed_coefficient: float) -> None:
        """Cut-off: `min_cutoff_hz` at rest, plus `speed_coefficient` times the RMS speed."""
        self.min_cutoff_hz = min_cutoff_hz
        self.speed_coefficient = speed_coefficient
        self.reset()

    def reset(self) -> None:
        """Forgets the past: the next value passes unchanged."""
        self._previous: npt.NDArray[np.float32] | None = None
        self._time_s = 0.0

    def __call__(self, value: FloatArray, time_s: float) -> FloatArray:
        """The filtered field. Where time does not move on, the value passes unchanged."""
        elapsed_s = time_s - self._time_s
        self._time_s = time_s
        if self._previous is None or self._previous.shape != value.shape or elapsed_s <= 0:
            self._previous = value
            return value
        change = value - self._previous
        speed = math.sqrt(float(np.mean(np.square(change)))) / elapsed_s
        cutoff_hz = self.min_cutoff_hz + self.speed_coefficient * speed
        share = 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff_hz * elapsed_s))
        self._previous = self._previous + np.float32(share) * change
        return self._previous


class MouthStabiliser:
    """Filters flow, RGB and mask of consecutive frames; `reset` it at a cut."""

    def __init__(self, min_cutoff_hz: float = 5.0, speed_coefficient: float = 1.0) -> None:
        """Units differ, so each field's coefficient is `speed_coefficient` times what suits it."""
        self._flow = OneEuroFilter(min_cutoff_hz, 100.0 * speed_coefficient)
        self._rgb = OneEuroFilter(min_cutoff_hz, 40.0 * speed_coefficient)
        self._mask = OneEuroFilter(min_cutoff_hz, 40.0 * speed_coefficient)

    def reset(self) -> None:
        """Forgets the past."""
        for field in (self._flow, self._rgb, self._mask):
            field.reset()

    def __call__(self, fields: MouthFields, time_s: float) -> MouthFields:
        """The stabilised fields of the frame at `time_s`."""
        return MouthFields(
            flow=self._flow(fields.flow, time_s),
            rgb=self._rgb(fields.rgb, time_s),
            mask=self._mask(fields.mask, time_s),
        )
