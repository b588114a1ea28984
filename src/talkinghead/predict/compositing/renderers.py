"""Renderers that blend a generated mouth into an image without a visible seam.

To add a renderer, write a class with the methods of `Renderer` and a file
`conf/renderer/NAME.yaml` with its `_target_`. The renderers in this module first match colour,
sharpness and grain (`talkinghead.predict.compositing.colour_matching`) and then blend.

Shape suffixes: H and W are the image's, h and w the region's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.compositing.colour_matching import (
    ColourMatcher,
    DetailMatcher,
    remove_green_cast,
)
from talkinghead.predict.compositing.mouth_region import (
    ELLIPSE_CENTRE,
    ELLIPSE_RADII,
    MouthRegion,
    PaintedMouth,
    sample_pixels,
    to_channels,
)
from talkinghead.predict.compositing.stabiliser import OneEuroFilter
from talkinghead.types import FloatArray, UInt8Array
from talkinghead.value_rules import Range, Seed, check_fields

_GRID = 64
# Side of an averaging window, in pixels, from which on the image is reduced first.
_LARGE_WINDOW = 6.0
_MAX_DIFFERENCE = 40


class Renderer(Protocol):
    """Protocol of a blending method for generated mouths; see `examples/custom_renderer.py`."""

    def reset(self) -> None:
        """Clear temporal state; this method is called at cuts and before every video."""

    def render(
        self, image: UInt8Array, mouth: PaintedMouth, region: MouthRegion, time_s: float
    ) -> UInt8Array:
        """Return a copy of the image with the generated mouth.

        Args:
            image: the part of the frame that contains the region, uint8 [H, W, 3] RGB; must not be
                modified. The same array is passed again while the image is still.
            mouth: the generated mouth over the region.
            region: position of the mouth in the image.
            time_s: time of the frame, for temporal filters.

        Returns:
            uint8 [H, W, 3], equal to `image` outside the region and where it is occluded.
        """


@dataclass(eq=False, kw_only=True)
class _MatchingRenderer(ABC):
    """Base class of renderers that match colour, sharpness and grain before blending.

    Attributes:
        sharpen: Sharpen the generated mouth up to the sharpness of the image.
        grain: Add the image's noise to the generated mouth.
        seed: Seed of the grain.
    """

    feather: Annotated[float, Range(0, 0.5)]
    sharpen: bool = True
    grain: bool = True
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self, "renderer.")
        self._radius: FloatArray | None = None
        self._colour = ColourMatcher()
        self._detail = DetailMatcher(self.sharpen, self.grain, self.seed)

    def reset(self) -> None:
        """Clear temporal state."""
        self._colour.reset()
        self._detail.reset()

    def render(
        self, image: UInt8Array, mouth: PaintedMouth, region: MouthRegion, time_s: float
    ) -> UInt8Array:
        """Return a copy of the image with the generated mouth."""
        mouth = remove_green_cast(mouth, image, region)
        matched = self._colour.match(mouth.image, image, region, time_s)
        matched = self._detail.match(replace(mouth, image=matched), image, region, time_s)
        original = region.crop(image)
        # NumPy converts the types of such operands in small blocks, which is several times slower.
        difference = cv2.subtract(matched, original, dtype=cv2.CV_32F)
        change = self._blend(np.asarray(difference, np.float32), region, time_s)
        if region.visibility is not None:
            change *= to_channels(region.visibility)
        output = image.copy()
        region.crop(output)[:] = cv2.add(original, change, dtype=cv2.CV_8U)
        return output

    def _edge(self, region: MouthRegion) -> FloatArray:
        """Return the weights of `_edge_weights` for three channels; a photo's are computed once."""
        if region.radius is not self._radius:
            self._radius = region.radius
            self._weights = to_channels(_edge_weights(region.radius, self.feather)[..., 0])
        return self._weights

    @abstractmethod
    def _blend(self, difference: FloatArray, region: MouthRegion, time_s: float) -> FloatArray:
        """Return the image change for a difference of mouth and image, both [h, w, 3]."""


def _edge_weights(radius: FloatArray, feather: float) -> FloatArray:
    """Return weights [h, w, 1] that rise from 0 at the ellipse's edge to 1 over `feather`."""
    width = np.float32(max(feather / ELLIPSE_RADII.mean(), 1e-6))
    ramp = ((1 - radius) / width).clip(0, 1)
    return (ramp * ramp * (3 - 2 * ramp))[..., None]


@dataclass(eq=False)
class FeatherRenderer(_MatchingRenderer):
    """Alpha blending with a soft edge; the fastest renderer.

    Attributes:
        feather: Width of the edge, as a fraction of the mouth box.
    """

    feather: Annotated[float, Range(0, 0.5)] = 0.08

    def _blend(self, difference: FloatArray, region: MouthRegion, time_s: float) -> FloatArray:
        return self._edge(region) * difference


@dataclass(eq=False)
class LaplacianRenderer(_MatchingRenderer):
    """Pyramid blending: coarse differences fade over a wide edge, fine detail over a narrow edge.

    One pyramid is built, of the difference between mouth and image. Its grid is fixed to the face,
    so it does not flicker when the head moves. Detail finer than the grid fades over `feather`, and
    each coarser level over twice the width of the one before.

    Attributes:
        feather: Width of the narrowest edge, as a fraction of the mouth box.
        levels: Number of pyramid levels.

    Paper: Burt and Adelson, "A Multiresolution Spline with Application to Image Mosaics", ACM
        Transactions on Graphics 1983.
    """

    feather: Annotated[float, Range(0, 0.5)] = 0.03
    levels: Annotated[int, Range(1, 8)] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = (np.arange(_GRID) + 0.5) / _GRID
        self._grid_xy = np.stack(np.meshgrid(steps, steps), -1)
        radius = np.linalg.norm((self._grid_xy - ELLIPSE_CENTRE) / ELLIPSE_RADII, axis=-1)
        narrow, *wider = (
            _edge_weights(radius, self.feather * 2**level) for level in range(self.levels + 1)
        )
        self._corrections = [
            np.divide(wide, narrow, out=np.full_like(wide, 4.0**-level), where=narrow > 0) - 1
            for level, wide in enumerate(wider, 1)
        ]

    def _blend(self, difference: FloatArray, region: MouthRegion, time_s: float) -> FloatArray:
        coarse = _local_means(difference, self._grid_xy, region, 1 / _GRID)
        pyramid = _laplacian_pyramid(coarse, self.levels)
        # The narrow edge is applied to the sum of all levels at the end. The corrections widen the
        # edge of each level in advance.
        terms = (c * level for c, level in zip(self._corrections, pyramid, strict=True))
        excess = np.asarray(sum(terms), dtype=np.float32)
        if excess.any():
            difference = difference + region.resample(excess, cv2.INTER_LINEAR)
        return self._edge(region) * difference


def _laplacian_pyramid(field: FloatArray, num_levels: int) -> list[FloatArray]:
    """Return the levels of a Laplacian pyramid, all of the field's size; their sum is the field."""
    levels, rest = [], field
    for level in range(1, num_levels):
        smooth = field
        for _ in range(level):
            smooth = np.asarray(cv2.pyrDown(smooth), dtype=np.float32)
        for _ in range(level):
            smooth = np.asarray(cv2.pyrUp(smooth), dtype=np.float32)
        levels.append(rest - smooth)
        rest = smooth
    return [*levels, rest]


@dataclass(eq=False)
class PoissonRenderer(_MatchingRenderer):
    """Gradient-domain blending, which keeps the gradients of the mouth in uneven light.

    The correction that makes the mouth meet the image along the ellipse and keeps its gradients is
    a harmonic function. On a disc it has a closed form, Poisson's integral: the Fourier series of
    the difference along the edge, whose terms decay towards the centre. The difference is smoothed
    over time against flicker, and clipped, because on a turned head the edge can be beside the
    face.

    Attributes:
        feather: Width of the edge, as a fraction of the mouth box.
        harmonics: Number of Fourier harmonics along the edge: how finely the light may vary.

    Paper: Perez, Gangnet and Blake, "Poisson Image Editing", SIGGRAPH 2003.
    """

    feather: Annotated[float, Range(0, 0.5)] = 0.05
    harmonics: Annotated[int, Range(0, 16)] = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._filter = OneEuroFilter(min_cutoff_hz=1.5)
        angle = np.arange(8 * self.harmonics) * (2 * np.pi / (8 * self.harmonics))
        circle_xy = np.stack([np.cos(angle), np.sin(angle)], -1)
        self._edge_xy = ELLIPSE_CENTRE + ELLIPSE_RADII * circle_xy
        self._kernel = _poisson_kernel(angle, self.harmonics)

    def reset(self) -> None:
        """Clear temporal state."""
        super().reset()
        self._filter.reset()

    def _blend(self, difference: FloatArray, region: MouthRegion, time_s: float) -> FloatArray:
        if region.visibility is not None:
            difference = difference * region.visibility[..., None]
        edge = _local_means(difference, self._edge_xy[None], region, 1 / 20)[0]
        edge = self._filter(edge.clip(-_MAX_DIFFERENCE, _MAX_DIFFERENCE), time_s)
        if edge.any():
            difference = difference - region.resample(self._kernel @ edge, cv2.INTER_LINEAR)
        return self._edge(region) * difference


def _local_means(
    field: FloatArray, box_xy: npt.NDArray[np.floating], region: MouthRegion, width: float
) -> FloatArray:
    """Return the local means of a field [h, w, 3] at positions [n, m, 2] in box units.

    `width` is the side of the averaging window as a fraction of the mouth box.
    """
    linear, offset = region.box_to_image[:, :2], region.box_to_image[:, 2]
    pixels = box_xy @ linear.T + offset - [region.columns.start, region.rows.start]
    side = max(1.0, region.side_px * width)
    if side >= _LARGE_WINDOW:
        # Most of the averaging is done by a reduction, which is faster.
        shape = np.array([round(3 * length / side) for length in field.shape[1::-1]]).clip(1)
        scale = shape / field.shape[1::-1]
        field = np.asarray(cv2.resize(field, shape.tolist(), interpolation=cv2.INTER_AREA))
        pixels, side = (pixels + 0.5) * scale - 0.5, 3.0
    size = round(side) | 1
    smooth = cv2.blur(field, (size, size), borderType=cv2.BORDER_REPLICATE)
    return sample_pixels(smooth, pixels, cv2.INTER_LINEAR)


def _poisson_kernel(angle: npt.NDArray[np.floating], harmonics: int) -> FloatArray:
    """Return the matrix from edge values to the harmonic function: [grid, grid, len(angle)]."""
    steps = (np.arange(_GRID) + 0.5) / _GRID
    x = (steps[None, :] - ELLIPSE_CENTRE[0]) / ELLIPSE_RADII[0]
    y = (steps[:, None] - ELLIPSE_CENTRE[1]) / ELLIPSE_RADII[1]
    radius = np.minimum(np.hypot(x, y), 1)[..., None]
    turn = np.arctan2(y, x)[..., None] - angle
    terms = (2 * radius**k * np.cos(k * turn) for k in range(1, harmonics + 1))
    return ((1 + sum(terms)) / len(angle)).astype(np.float32)
