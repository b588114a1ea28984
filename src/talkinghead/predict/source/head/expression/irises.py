"""Gaze direction in a photo: detection of the irises and their displacement in the open eyes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.source.head.expression.blendshapes import LIDS
from talkinghead.predict.source.head.head_geometry import Floats, smooth_step
from talkinghead.types import FloatArray, UInt8Array

# Radii of the iris, which hardly differs between people, and of its path around the centre of the
# eyeball, in centimetres.
_IRIS_CM, _PATH_CM = 0.6, 1.05
# Smallest difference of brightness between the iris and the white of the eye.
_MIN_CONTRAST = 12.0
# Largest motion to the side and vertically, in widths and heights of the open eye.
_MAX_ASIDE, _MAX_DOWN = 0.13, 0.15
# Smallest height of an eye relative to its width, and smallest width in pixels.
_MIN_ASPECT, _MIN_WIDTH = 0.15, 10.0
# Distances from a lid, as fractions of the open eye's height, within which motion down and to the
# side fades out.
_EDGE, _EDGE_ASIDE = 0.2, 0.05
# Distance from a lid, in the same unit, within which motion to the side begins to follow the lid.
_STRAIGHT = 0.3


@dataclass(frozen=True, eq=False)
class Iris:
    """Geometry for moving the iris of one eye.

    Attributes:
        rows, columns: slices of the image.
        along, between: position of each pixel along the eye, in pixels from its left corner, and
            between the upper lid (0) and the lower lid (1), float32 [h, w].
        centre: the same coordinates of the centre of the iris.
        radius: radius of the iris in pixels.
        width, height: size of the open eye in pixels.
        pixels_per_sine: motion of the iris in pixels per sine of the angle of the gaze.
        corner, across: left corner of the eye, and unit vector to the right one, [2].
        edges: y of the upper and the lower lid below the corners by x along the eye, [2, width].
    """

    rows: slice
    columns: slice
    along: FloatArray
    between: FloatArray
    centre: tuple[float, float]
    radius: float
    width: float
    height: float
    pixels_per_sine: float
    corner: Floats
    across: Floats
    edges: Floats

    def look(self, image: UInt8Array, right_deg: float, down_deg: float) -> None:
        """Turn the gaze in place, relative to that of the image."""
        aside, down = (self.pixels_per_sine * np.sin(np.radians((right_deg, down_deg)))).tolist()
        aside = float(np.clip(aside, -_MAX_ASIDE * self.width, _MAX_ASIDE * self.width))
        down = float(np.clip(down, -_MAX_DOWN * self.height, _MAX_DOWN * self.height))
        # The motion is constant in the iris and ends at the corners and at the lids.
        aside_part, down_part, middle, straight = self._parts
        source_x = self.along - aside * aside_part
        # Follow the lids near them, so that no skin is moved into the eye.
        along_lids = self._edge_y(source_x, self.between)
        source_y = middle * straight + (1 - middle) * along_lids - down * down_part
        inside = aside_part > 0
        axis_down = np.array([-self.across[1], self.across[0]])
        xy = self.corner + source_x[..., None] * self.across + source_y[..., None] * axis_down
        region = image[self.rows, self.columns]
        moved = cv2.remap(  # type: ignore[call-overload]
            image, xy.astype(np.float32), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        cv2.copyTo(moved, inside.astype(np.uint8), region)

    @cached_property
    def _parts(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Parts of the motion to the side and down, and of motion that does not follow the lids.

        Each is [h, w]; the last array is y below the corners of the eye.
        """
        x, left, right = self.along, self.centre[0] - self.radius, self.centre[0] + self.radius
        beside = smooth_step(
            np.minimum(x / max(left, 1.0), (self.width - x) / max(self.width - right, 1.0))
        )
        edge = np.minimum(self.between, 1 - self.between)
        aside_part, down_part = (beside * smooth_step(edge / e) for e in (_EDGE_ASIDE, _EDGE))
        straight = self._edge_y(x, self.between)
        return aside_part, down_part, smooth_step(edge / _STRAIGHT), straight

    def _edge_y(self, along: npt.NDArray[np.floating], between: FloatArray) -> Floats:
        """Return y below the corners at positions along the eye and between the lids."""
        grid = np.arange(self.edges.shape[1])
        upper, lower = (np.interp(along, grid, edge) for edge in self.edges)
        return np.asarray(upper + between * (lower - upper))


def find_iris(image: UInt8Array, points: FloatArray, side: str, scale: float) -> Iris | None:
    """Return the iris of the person's "Left" or "Right" eye; None if it is not visible.

    Args:
        image: the photo, uint8 [H, W, 3] RGB.
        points: FaceMesh's points [468, 2] in the photo.
        side: the eye.
        scale: pixels per centimetre of the face.
    """
    lids = [points[list(lid)].astype(float) for lid in LIDS[side]]
    corner, end = lids[0][0], lids[0][-1]
    width = float(np.linalg.norm(end - corner))
    across = (end - corner) / max(width, 1e-6)
    down = np.array([-across[1], across[0]])
    grid = np.arange(max(2, int(np.ceil(width)) + 1))
    curves = [((lid - corner) @ across, (lid - corner) @ down) for lid in lids]
    edges = np.stack([np.interp(grid, np.maximum.accumulate(x), y) for x, y in curves])
    height = float((edges[1] - edges[0]).max())
    if width < _MIN_WIDTH or height < _MIN_ASPECT * width:
        return None
    low = np.floor(np.concatenate(lids).min(0)).astype(int) - 1
    high = np.ceil(np.concatenate(lids).max(0)).astype(int) + 2
    if (low < 0).any() or (high > image.shape[1::-1]).any():
        return None
    xy = np.stack(np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1])), -1)
    along, deep = (xy - corner) @ across, (xy - corner) @ down
    upper, lower = (np.interp(along, grid, edge) for edge in edges)
    between = np.where(lower - upper > 0.5, (deep - upper) / np.maximum(lower - upper, 0.5), -1)
    radius = min(_IRIS_CM * scale, 0.3 * width)
    rows, columns = slice(low[1], high[1]), slice(low[0], high[0])
    grey = cv2.cvtColor(image[rows, columns], cv2.COLOR_RGB2GRAY).astype(np.float32)
    found = _darkest_disc(grey, along, deep, (between > 0.02) & (between < 0.98), radius, width)
    if found is None:
        return None
    return Iris(
        rows,
        columns,
        along.astype(np.float32),
        between.astype(np.float32),
        found,
        radius,
        width,
        height,
        _PATH_CM * scale,
        corner,
        across,
        edges,
    )


def _darkest_disc(
    grey: FloatArray,
    along: Floats,
    deep: Floats,
    inside: np.ndarray,
    radius: float,
    width: float,
) -> tuple[float, float] | None:
    """Return the centre (x along the eye, y below its corners) of the iris, or None.

    This is the disc within the open eye that is darkest relative to the rest of the eye.
    """
    if not inside.any():
        return None
    middle = float(deep[inside].mean())
    best, centre = _MIN_CONTRAST, None
    for x in np.linspace(0.8 * radius, width - 0.8 * radius, 25):
        for y in middle + radius * np.linspace(-0.5, 0.5, 5):
            distance = np.hypot(along - x, deep - y)
            disc, rest = inside & (distance < radius), inside & (distance > 1.1 * radius)
            if disc.sum() < 6 or rest.sum() < 6:
                continue
            contrast = float(grey[rest].mean() - grey[disc].mean())
            if contrast > best:
                best, centre = contrast, (float(x), float(y))
    return centre
