"""From the generator's small fields to pixels at the source's resolution.

Everything is computed on the pixels of the picture around the mouth. For each of them
the flow says where in the *reference picture itself* its colour comes from, so the texture is
resampled once: where the flow is zero on a photo, the pixel is the photo's own.

Coordinates: *box* units run from (0, 0) at the box's upper left corner to (1, 1) at its lower
    right; pictures count
from the middle of their first pixel.

Shape suffixes: H and W are the picture's, h and w the region's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.features.faces.alignment import invert
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.types import AVSpec, FloatArray, UInt8Array

# The ellipse that may be replaced, in box units: without the nose, which speech does not move, and
# without what is beside the face.
OUTLINE_CENTRE: FloatArray = np.array([0.5, 0.53], dtype=np.float32)
OUTLINE_RADII: FloatArray = np.array([0.40, 0.45], dtype=np.float32)
# How far around it there is something to compare with.
_MARGIN = 1.06
# How soft the edge of a face is, in sides of the box.
_EDGE = 0.03


@dataclass(frozen=True)
class MouthRegion:
    """The pixels of a picture around the ellipse that may be replaced.

    `rows` and `columns` cut the region out of the picture; `places` float32 [h, w, 2] are each
    pixel's (x, y) in box units; `box_to_picture` float32 [2, 3]; `radius` float32 [h, w] is the
    distance from the middle of the ellipse that may be replaced, 1 at its outline; `visible`
    float32 [h, w] in [0, 1] is what nothing covers, None where all is visible.
    """

    rows: slice
    columns: slice
    places: FloatArray
    box_to_picture: FloatArray
    radius: FloatArray
    visible: FloatArray | None = None

    @property
    def side(self) -> float:
        """The box's side in pixels of the picture."""
        return float(np.hypot(self.box_to_picture[0, 0], self.box_to_picture[1, 0]))

    def of(self, picture: UInt8Array) -> UInt8Array:
        """A view of the region in a picture: uint8 [h, w, 3]."""
        return picture[self.rows, self.columns]

    def inside(self, outline: FloatArray) -> FloatArray:
        """What a convex outline holds, [P, 2] pixels of the picture; soft outside of its edge.

        Returns:
            float32 [h, w] in [0, 1].
        """
        corner = [self.columns.start, self.rows.start]
        held = np.zeros(self.radius.shape, np.float32)
        cv2.fillConvexPoly(held, np.rint(outline - corner).astype(np.int32), 2.0)
        return cv2.GaussianBlur(held, (0, 0), max(0.5, _EDGE * self.side)).clip(0, 1)

    def spread(self, field: FloatArray, interpolation: int = cv2.INTER_CUBIC) -> FloatArray:
        """A field over the box, [n, m] or [n, m, C], at each of the region's pixels."""
        if self.side < 0.75 * field.shape[1]:
            size = max(8, round(self.side))
            field = np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_AREA))
        size_xy = np.array([[field.shape[1]], [field.shape[0]]])
        to_field = invert(self.box_to_picture).astype(np.float64) * size_xy
        to_field[:, 2] += to_field[:, :2] @ [self.columns.start, self.rows.start] - 0.5
        height, width = self.radius.shape
        return cv2.warpAffine(  # type: ignore[return-value]
            field,
            to_field,
            (width, height),
            flags=interpolation | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )


@dataclass(frozen=True)
class PaintedMouth:
    """The generated mouth at the picture's resolution.

    `image` float32 [h, w, 3] RGB about [0, 255]; `share` float32 [h, w] in [0, 1] says how much of
    it is painted rather than warped; `pitch` is how many pixels a painted one was spread over.
    """

    image: FloatArray
    share: FloatArray
    pitch: float


@dataclass(frozen=True)
class Texture:
    """The picture that texture is taken from, uint8 [H, W, 3], and where its box lies in it."""

    picture: UInt8Array
    box_to_picture: FloatArray


def sample(
    image: npt.NDArray[Any], places: npt.NDArray[np.floating], interpolation: int
) -> FloatArray:
    """An image [n, m(, C)] at pixels (x, y), [h, w, 2]: [h, w(, C)] of the image's own type."""
    return cv2.remap(  # type: ignore[call-overload]
        image,
        places.astype(np.float32, copy=False),
        None,
        interpolation,
        borderMode=cv2.BORDER_REPLICATE,
    )


def box_to_picture(transform: FloatArray, spec: AVSpec) -> FloatArray:
    """From box units to pixels of the picture that `transform` aligns: float32 [2, 3]."""
    inverse = invert(transform).astype(np.float64)
    corner = np.array([spec.mouth_x, spec.mouth_y]) - 0.5
    offset = inverse[:, :2] @ corner + inverse[:, 2]
    return np.hstack([inverse[:, :2] * spec.mouth_side, offset[:, None]]).astype(np.float32)


def mouth_region(
    transform: FloatArray, height: int, width: int, spec: AVSpec
) -> MouthRegion | None:
    """Where the mouth lies in a picture; None when it is wholly outside."""
    to_picture = box_to_picture(transform, spec)
    middle = to_picture[:, :2] @ OUTLINE_CENTRE + to_picture[:, 2]
    reach = _MARGIN * np.linalg.norm(to_picture[:, :2] * OUTLINE_RADII, axis=1)
    x0, y0 = np.clip(np.floor(middle - reach).astype(int), 0, [width, height])
    x1, y1 = np.clip(np.ceil(middle + reach).astype(int) + 1, 0, [width, height])
    if x1 <= x0 or y1 <= y0:
        return None
    pixels = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), -1).astype(np.float32)
    to_box = invert(to_picture)
    to_ellipse = to_box - np.array([[0, 0, x] for x in OUTLINE_CENTRE], dtype=np.float32)
    unit = cv2.transform(pixels, to_ellipse / OUTLINE_RADII[:, None])
    radius = np.asarray(cv2.magnitude(unit[..., 0], unit[..., 1]), dtype=np.float32)
    places = np.asarray(cv2.transform(pixels, to_box), dtype=np.float32)
    return MouthRegion(slice(y0, y1), slice(x0, x1), places, to_picture, radius)


def paint_mouth(fields: MouthFields, texture: Texture, region: MouthRegion) -> PaintedMouth:
    """The generated mouth at the picture's resolution.

    Args:
        fields: the generator's, over the box.
        texture: what the flow moves.
        region: the pixels to paint.
    """
    wanted = region.places + region.spread(fields.flow)
    source = np.asarray(cv2.transform(wanted, texture.box_to_picture), dtype=np.float32)
    image = sample(texture.picture, source, cv2.INTER_CUBIC).astype(np.float32)
    share = region.spread(fields.mask, cv2.INTER_LINEAR)
    x, y, width, height = cv2.boundingRect((share > 0).view(np.uint8))
    part = slice(y, y + height), slice(x, x + width)
    painted = region.spread(fields.rgb)[part] * np.float32(255)
    image[part] += share[part][..., None] * (painted - image[part])
    return PaintedMouth(image, share, region.side / fields.rgb.shape[1])
