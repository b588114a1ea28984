"""Putting a generated mouth into a picture so that no box shows.

Both renderers change the mouth's region alone: every other pixel of the result is the picture's
own.

Shape suffixes: H and W are the picture's, h and w the region's.
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.region import OUTLINE_CENTRE, OUTLINE_RADII, MouthRegion, sample
from talkinghead.predict.stabiliser import OneEuroFilter
from talkinghead.types import FloatArray, UInt8Array

_RING_CENTRE: FloatArray = np.array([0.5, 0.32], dtype=np.float32)
_RING_RADII: FloatArray = np.array([0.36, 0.30], dtype=np.float32)
_RING_INNER = 0.75
_RING_BOTTOM = 0.55
_MAX_LOG_GAIN = 0.25
_QUIET_LOG_GAIN = 0.1
_QUIET_SHIFT = 0.5
_STATISTICS_SIDE = 96
_GRID = 64
_MAX_DIFFERENCE = 40


class Renderer(Protocol):
    """How a generated mouth gets into a picture."""

    def reset(self) -> None:
        """Forgets earlier frames: called at a cut and before every video."""

    def render(
        self, picture: UInt8Array, mouth: FloatArray, region: MouthRegion, time_s: float
    ) -> UInt8Array:
        """The composite.

        Args:
            picture: uint8 [H, W, 3] RGB; not changed.
            mouth: float32 [h, w, 3] RGB in [0, 255], from `paint_mouth`.
            region: where it belongs.
            time_s: the frame's time, for temporal smoothing.

        Returns:
            uint8 [H, W, 3], equal to `picture` outside the region.
        """


class ColourMatcher:
    """Gives generated skin the mean and spread, in Lab, of the skin in a ring around the mouth.

    The ring leaves out its lower part: the chin moves there, and what is behind it is not skin. The
        correction is smoothed
    over time, because skin does not change colour from frame to frame and a correction that does is
    seen as flicker.

    Paper: Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001.
    """

    def __init__(self) -> None:
        self._filter = OneEuroFilter(min_cutoff_hz=0.7, speed_coefficient=0.0)

    def reset(self) -> None:
        """Forgets earlier frames."""
        self._filter.reset()

    def match(
        self, mouth: FloatArray, picture: UInt8Array, region: MouthRegion, time_s: float
    ) -> FloatArray:
        """The corrected mouth, float32 [h, w, 3] in [0, 255]."""
        step = max(1, round(region.side / _STATISTICS_SIDE))
        ring = _ring(region.places[::step, ::step])
        original = region.of(picture)[::step, ::step].astype(np.float32)
        if ring.sum() < 16:
            return mouth
        wanted, given = (_statistics(pixels[ring]) for pixels in (original, mouth[::step, ::step]))
        log_gain = np.log(wanted[1] / given[1]).clip(-_MAX_LOG_GAIN, _MAX_LOG_GAIN)
        correction = np.stack(
            [_shrink(log_gain, _QUIET_LOG_GAIN), _shrink(wanted[0] - given[0], _QUIET_SHIFT)]
        )
        log_gain, shift = self._filter(correction, time_s)
        if not (log_gain.any() or shift.any()):
            return mouth
        return _from_lab((_to_lab(mouth) - given[0]) * np.exp(log_gain) + (given[0] + shift))


def _shrink(value: FloatArray, quiet: float) -> FloatArray:
    """Towards zero by `quiet`: so small a difference is motion in the ring, not colour."""
    return np.sign(value) * np.maximum(np.abs(value) - np.float32(quiet), 0)


def _ring(places: FloatArray) -> np.ndarray:
    radius = np.linalg.norm((places - _RING_CENTRE) / _RING_RADII, axis=-1)
    return (radius > _RING_INNER) & (radius < 1.0) & (places[..., 1] < _RING_BOTTOM)


def _statistics(pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation of each Lab channel of pixels [n, 3]."""
    lab = _to_lab(pixels[None])[0]
    return lab.mean(0), lab.std(0) + np.float32(1.0)


def _to_lab(rgb: FloatArray) -> FloatArray:
    return np.asarray(cv2.cvtColor(rgb.clip(0, 255) / np.float32(255), cv2.COLOR_RGB2Lab))


def _from_lab(lab: FloatArray) -> FloatArray:
    return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB).clip(0, 1) * np.float32(255)


def _blend(
    picture: UInt8Array, mouth: FloatArray, region: MouthRegion, feather: float
) -> UInt8Array:
    """The picture with the mouth faded in over `feather` (in box sides) from the outline."""
    width = np.float32(feather / OUTLINE_RADII.mean())
    ramp = ((1 - region.radius) / width).clip(0, 1)
    alpha = (ramp * ramp * (3 - 2 * ramp))[..., None]
    original = region.of(picture)
    blended = original + alpha * (mouth - original)
    composite = picture.copy()
    composite[region.rows, region.columns] = np.rint(blended).clip(0, 255).astype(np.uint8)
    return composite


class FeatherRenderer:
    """Colour correction, then a soft edge."""

    def __init__(self, feather: float = 0.08) -> None:
        """`feather`: the edge's width as a fraction of the mouth's box."""
        self.feather = feather
        self._colour = ColourMatcher()

    def reset(self) -> None:
        """Forgets earlier frames."""
        self._colour.reset()

    def render(
        self, picture: UInt8Array, mouth: FloatArray, region: MouthRegion, time_s: float
    ) -> UInt8Array:
        """See `Renderer.render`."""
        mouth = self._colour.match(mouth, picture, region, time_s)
        return _blend(picture, mouth, region, self.feather)


class PoissonRenderer:
    """Gradient-domain blending: the mouth's gradients, the picture's colours along the outline.

    What must be added to the mouth so that it meets the picture along the outline and keeps its
    gradients inside is harmonic, hence smooth. On a disc it has a closed form, Poisson's integral:
    the difference around the outline as a Fourier series, whose terms fade towards the middle. It
    is smoothed in time (from each frame's own, the mouth would flicker) and bounded, for where the
    head has turned it is not skin against skin.

    Paper: Perez, Gangnet and Blake, "Poisson Image Editing", SIGGRAPH 2003.
    """

    def __init__(self, feather: float = 0.05, harmonics: int = 8) -> None:
        """`feather`: the edge's width as a fraction of the box; `harmonics`: of the series."""
        self.feather = feather
        self._colour = ColourMatcher()
        self._outline = OneEuroFilter(min_cutoff_hz=1.5, speed_coefficient=0.0)
        angle = np.arange(8 * harmonics) * (2 * np.pi / (8 * harmonics))
        self._places = OUTLINE_CENTRE + OUTLINE_RADII * np.stack([np.cos(angle), np.sin(angle)], -1)
        self._kernel = _disc_kernel(angle, harmonics)

    def reset(self) -> None:
        """Forgets earlier frames."""
        self._colour.reset()
        self._outline.reset()

    def render(
        self, picture: UInt8Array, mouth: FloatArray, region: MouthRegion, time_s: float
    ) -> UInt8Array:
        """See `Renderer.render`."""
        mouth = self._colour.match(mouth, picture, region, time_s)
        outline = self._outline(self._difference(region.of(picture) - mouth, region), time_s)
        if outline.any():
            mouth = mouth + region.spread(self._kernel @ outline, cv2.INTER_LINEAR)
        return _blend(picture, mouth, region, self.feather)

    def _difference(self, difference: FloatArray, region: MouthRegion) -> FloatArray:
        """A difference over the region, [h, w, 3], around the outline: float32 [n, 3]."""
        size = max(1, round(region.side / 20)) | 1
        smooth = cv2.blur(difference, (size, size), borderType=cv2.BORDER_REPLICATE)
        linear, offset = region.box_to_picture[:, :2], region.box_to_picture[:, 2]
        pixels = self._places @ linear.T + offset - [region.columns.start, region.rows.start]
        around = sample(smooth, pixels[None], cv2.INTER_LINEAR)[0]
        return around.clip(-_MAX_DIFFERENCE, _MAX_DIFFERENCE)


def _disc_kernel(angle: npt.NDArray[np.floating], harmonics: int) -> FloatArray:
    """From values around the outline to the harmonic function: float32 [grid, grid, len(angle)]."""
    steps = (np.arange(_GRID) + 0.5) / _GRID
    x = (steps[None, :] - OUTLINE_CENTRE[0]) / OUTLINE_RADII[0]
    y = (steps[:, None] - OUTLINE_CENTRE[1]) / OUTLINE_RADII[1]
    radius = np.minimum(np.hypot(x, y), 1)[..., None]
    turn = np.arctan2(y, x)[..., None] - angle
    terms = (2 * radius**k * np.cos(k * turn) for k in range(1, harmonics + 1))
    return ((1 + sum(terms)) / len(angle)).astype(np.float32)
