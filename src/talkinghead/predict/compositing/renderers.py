"""Putting a generated mouth into a picture so that no box shows.

Every renderer first matches the mouth to the picture (`talkinghead.predict.compositing.colour_matching`), then blends
it in, and changes the mouth's region alone: every other pixel of the result is the picture's own.

Shape suffixes: H and W are the picture's, h and w the region's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.compositing.colour_matching import (
    ColourMatcher,
    DetailMatcher,
    without_green,
)
from talkinghead.predict.compositing.mouth_region import (
    OUTLINE_CENTRE,
    OUTLINE_RADII,
    MouthRegion,
    PaintedMouth,
    sample,
)
from talkinghead.predict.compositing.stabiliser import OneEuroFilter
from talkinghead.types import FloatArray, UInt8Array

_GRID = 64
_MAX_DIFFERENCE = 40


class Renderer(Protocol):
    """How a generated mouth gets into a picture."""

    def reset(self) -> None:
        """Forgets earlier frames: called at a cut and before every video."""

    def render(
        self, picture: UInt8Array, mouth: PaintedMouth, region: MouthRegion, time_s: float
    ) -> UInt8Array:
        """The composite.

        Args:
            picture: uint8 [H, W, 3] RGB; not changed.
            mouth: from `paint_mouth`.
            region: where it belongs.
            time_s: the frame's time, for temporal smoothing.

        Returns:
            uint8 [H, W, 3], equal to `picture` outside the region and where that is covered.
        """


class _MatchingRenderer(ABC):
    """Colour, sharpness and grain, the same for every way of blending.

    Args:
        feather: the edge's width as a fraction of the mouth's box.
        sharpen: whether paint is sharpened as far as the picture is sharp.
        grain: whether paint gets the picture's grain.
        seed: of the grain.
    """

    def __init__(
        self, feather: float, sharpen: bool = True, grain: bool = True, seed: int = 0
    ) -> None:
        self.feather = feather
        self._colour = ColourMatcher()
        self._detail = DetailMatcher(sharpen, grain, seed)

    def reset(self) -> None:
        """Forgets earlier frames."""
        self._colour.reset()
        self._detail.reset()

    def render(
        self, picture: UInt8Array, mouth: PaintedMouth, region: MouthRegion, time_s: float
    ) -> UInt8Array:
        """See `Renderer.render`."""
        mouth = without_green(mouth, picture, region)
        image = self._colour.match(mouth.image, picture, region, time_s)
        image = self._detail.match(replace(mouth, image=image), picture, region, time_s)
        original = region.of(picture)
        change = self._blend(image - original, region, time_s)
        if region.visible is not None:
            change *= region.visible[..., None]
        composite = picture.copy()
        region.of(composite)[:] = np.rint(original + change).clip(0, 255)
        return composite

    @abstractmethod
    def _blend(self, difference: FloatArray, region: MouthRegion, time_s: float) -> FloatArray:
        """Of the mouth's difference from the picture, [h, w, 3], what is added to the picture."""


def _fade(radius: FloatArray, feather: float) -> FloatArray:
    """From 0 at the outline to 1, over `feather` sides of the box: [h, w, 1] of [h, w]."""
    width = np.float32(feather / OUTLINE_RADII.mean())
    ramp = ((1 - radius) / width).clip(0, 1)
    return (ramp * ramp * (3 - 2 * ramp))[..., None]


class FeatherRenderer(_MatchingRenderer):
    """A soft edge."""

    def __init__(
        self, feather: float = 0.08, sharpen: bool = True, grain: bool = True, seed: int = 0
    ) -> None:
        """See `_MatchingRenderer`."""
        super().__init__(feather, sharpen, grain, seed)

    def _blend(self, difference: FloatArray, region: MouthRegion, time_s: float) -> FloatArray:
        return _fade(region.radius, self.feather) * difference


class LaplacianRenderer(_MatchingRenderer):
    """Pyramid blending: the coarser the difference, the wider the edge that it fades over.

    Fine detail changes over a narrow edge, where doubled texture would be seen; shades change over
    a wide one. The pyramid of the *difference* is taken, which is one instead of two, and on a grid
    that is fixed in the face: its cells do not slide over the skin when the head moves, so nothing
    flickers. What is finer than the grid fades over `feather`, each level below over twice as much.

    Paper: Burt and Adelson, "A Multiresolution Spline with Application to Image Mosaics", ACM
        Transactions on Graphics 1983.
    """

    def __init__(
        self,
        feather: float = 0.03,
        levels: int = 3,
        sharpen: bool = True,
        grain: bool = True,
        seed: int = 0,
    ) -> None:
        """`feather`: the narrowest edge; `levels`: of the pyramid, the last takes the rest."""
        super().__init__(feather, sharpen, grain, seed)
        steps = (np.arange(_GRID) + 0.5) / _GRID
        self._places = np.stack(np.meshgrid(steps, steps), -1)
        radius = np.linalg.norm((self._places - OUTLINE_CENTRE) / OUTLINE_RADII, axis=-1)
        narrow, *wider = (_fade(radius, feather * 2**level) for level in range(levels + 1))
        self._faded = [
            np.divide(wide, narrow, out=np.full_like(wide, 4.0**-level), where=narrow > 0) - 1
            for level, wide in enumerate(wider, 1)
        ]

    def _blend(self, difference: FloatArray, region: MouthRegion, time_s: float) -> FloatArray:
        coarse = _around(difference, self._places, region, 1 / _GRID)
        bands = zip(self._faded, _bands(coarse, len(self._faded)), strict=True)
        # What the narrow edge, which comes last, leaves too much of.
        excess = np.asarray(sum(faded * band for faded, band in bands), dtype=np.float32)
        if excess.any():
            difference = difference + region.spread(excess, cv2.INTER_LINEAR)
        return _fade(region.radius, self.feather) * difference


def _bands(field: FloatArray, levels: int) -> list[FloatArray]:
    """A Laplacian pyramid, every level brought back to the field's size: their sum is the field."""
    bands, rest = [], field
    for level in range(1, levels):
        smooth = field
        for _ in range(level):
            smooth = np.asarray(cv2.pyrDown(smooth), dtype=np.float32)
        for _ in range(level):
            smooth = np.asarray(cv2.pyrUp(smooth), dtype=np.float32)
        bands.append(rest - smooth)
        rest = smooth
    return [*bands, rest]


class PoissonRenderer(_MatchingRenderer):
    """Gradient-domain blending: the mouth's gradients, the picture's colours along the outline.

    What must be added to the mouth so that it meets the picture along the outline and keeps its
    gradients inside is harmonic, hence smooth. On a disc it has a closed form, Poisson's integral:
    the difference around the outline as a Fourier series, whose terms fade towards the middle. It
    is smoothed in time (from each frame's own, the mouth would flicker) and bounded, for where the
    head has turned it is not skin against skin.

    Paper: Perez, Gangnet and Blake, "Poisson Image Editing", SIGGRAPH 2003.
    """

    def __init__(
        self,
        feather: float = 0.05,
        harmonics: int = 8,
        sharpen: bool = True,
        grain: bool = True,
        seed: int = 0,
    ) -> None:
        """`harmonics`: of the series around the outline."""
        super().__init__(feather, sharpen, grain, seed)
        self._outline = OneEuroFilter(min_cutoff_hz=1.5, speed_coefficient=0.0)
        angle = np.arange(8 * harmonics) * (2 * np.pi / (8 * harmonics))
        self._places = OUTLINE_CENTRE + OUTLINE_RADII * np.stack([np.cos(angle), np.sin(angle)], -1)
        self._kernel = _disc_kernel(angle, harmonics)

    def reset(self) -> None:
        """Forgets earlier frames."""
        super().reset()
        self._outline.reset()

    def _blend(self, difference: FloatArray, region: MouthRegion, time_s: float) -> FloatArray:
        if region.visible is not None:
            difference = difference * region.visible[..., None]
        around = _around(difference, self._places[None], region, 1 / 20)[0]
        around = around.clip(-_MAX_DIFFERENCE, _MAX_DIFFERENCE)
        outline = self._outline(around, time_s)
        if outline.any():
            difference = difference - region.spread(self._kernel @ outline, cv2.INTER_LINEAR)
        return _fade(region.radius, self.feather) * difference


def _around(
    field: FloatArray, places: npt.NDArray[np.floating], region: MouthRegion, width: float
) -> FloatArray:
    """The mean of a field over the region, [h, w, 3], around places in box units, [n, m, 2].

    `width`, in sides of the box, is that of the squares that are averaged.
    """
    size = max(1, round(region.side * width)) | 1
    smooth = cv2.blur(field, (size, size), borderType=cv2.BORDER_REPLICATE)
    linear, offset = region.box_to_picture[:, :2], region.box_to_picture[:, 2]
    pixels = places @ linear.T + offset - [region.columns.start, region.rows.start]
    return sample(smooth, pixels, cv2.INTER_LINEAR)


def _disc_kernel(angle: npt.NDArray[np.floating], harmonics: int) -> FloatArray:
    """From values around the outline to the harmonic function: float32 [grid, grid, len(angle)]."""
    steps = (np.arange(_GRID) + 0.5) / _GRID
    x = (steps[None, :] - OUTLINE_CENTRE[0]) / OUTLINE_RADII[0]
    y = (steps[:, None] - OUTLINE_CENTRE[1]) / OUTLINE_RADII[1]
    radius = np.minimum(np.hypot(x, y), 1)[..., None]
    turn = np.arctan2(y, x)[..., None] - angle
    terms = (2 * radius**k * np.cos(k * turn) for k in range(1, harmonics + 1))
    return ((1 + sum(terms)) / len(angle)).astype(np.float32)
