"""The mouth region of a frame, and the generated mouth at the frame's resolution.

Renderers change only the ellipse `ELLIPSE_CENTRE`, `ELLIPSE_RADII` within the mouth box. The box
and the model's input mask are fields of `talkinghead.types.AVSpec`: a model must be trained again
after they change.

Coordinates: *box* units run from (0, 0) at the upper left corner of the mouth box to (1, 1) at its
    lower right corner; image coordinates have their origin at the centre of the first pixel.

Shape suffixes: H and W are the image's, h and w the region's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.features.faces.alignment import invert
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.compositing.warp.lip_sides import lip_line_box, lip_sides
from talkinghead.types import AVSpec, FloatArray, UInt8Array

# The ellipse excludes the nose, which speech does not move, and the background beside the face.
ELLIPSE_CENTRE: FloatArray = np.array([0.5, 0.53], dtype=np.float32)
ELLIPSE_RADII: FloatArray = np.array([0.40, 0.45], dtype=np.float32)
# Geometry of the skin ring around the mouth; positions are in box units.
_RING_CENTRE: FloatArray = np.array([0.5, 0.32], dtype=np.float32)
_RING_RADII: FloatArray = np.array([0.36, 0.30], dtype=np.float32)
_RING_INNER = 0.75
_RING_BOTTOM = 0.55
# Side of the mouth box, in pixels, to which statistics of the ring are subsampled.
_STATISTICS_SIDE = 96
# Size of the region relative to the ellipse, so that pixels around the ellipse are included.
_MARGIN = 1.06
# Smaller weights of the smoothed seam are not visible.
_MIN_SEAM = 0.02
# Smaller blurs are not visible.
_MIN_BLUR_PX = 0.4
# Enlargement of a field above which it is interpolated in two steps.
_LARGE_ZOOM = 3.0
# Smallest side of the mouth box, in pixels, of a reduced region; the model's RGB is smaller.
_REDUCED_SIDE = 224
# Blur of the edge of the face outline, as a fraction of the box side.
_OUTLINE_BLUR = 0.03
# Largest blur of the edge, in pixels, at full size; half of it at least at a smaller size.
_MAX_OUTLINE_SIGMA = 6.0


@dataclass(frozen=True)
class MouthRegion:
    """The rectangle of an image around the ellipse in which the mouth may be changed.

    Attributes:
        rows, columns: the region's slices of the image.
        box_xy: (x, y) of each pixel in box units, float32 [h, w, 2].
        box_to_image: transform from box units to image pixels, float32 [2, 3].
        radius: distance from the ellipse's centre, 1 at its edge, float32 [h, w].
        visibility: 1 where the mouth is visible, 0 where it is occluded, float32 [h, w]; None if
            all of it is visible.
        origin_xy: column and row, in the frame, of the first pixel of the image that `rows` and
            `columns` refer to; not (0, 0) for a part of a frame.
        factor: number by which the image, of which all other attributes are, is smaller than the
            frame.
    """

    rows: slice
    columns: slice
    box_xy: FloatArray
    box_to_image: FloatArray
    radius: FloatArray
    visibility: FloatArray | None = None
    origin_xy: tuple[int, int] = (0, 0)
    factor: int = 1

    @property
    def frame_part(self) -> tuple[slice, slice]:
        """Rows and columns of the region in the frame at full size."""
        rows, columns = (
            slice(self.factor * part.start, self.factor * part.stop)
            for part in (self.rows, self.columns)
        )
        return rows, columns

    @cached_property
    def frame_box_to_image(self) -> FloatArray:
        """Transform from box units to pixels of the frame at full size, float32 [2, 3]."""
        return _scaled(self.box_to_image, self.factor)

    def from_frame(self, points: FloatArray) -> FloatArray:
        """Return points [P, 2] in pixels of the frame as pixels of the image."""
        if self.factor == 1:
            return points
        return np.asarray((points + 0.5) / self.factor - 0.5, np.float32)

    @cached_property
    def side_px(self) -> float:
        """Side length of the mouth box in image pixels."""
        return float(np.hypot(self.box_to_image[0, 0], self.box_to_image[1, 0]))

    @cached_property
    def skin_ring(self) -> tuple[int, npt.NDArray[np.bool_]]:
        """The mask of the skin around the mouth, for colour and noise statistics.

        The lower part of the ring is excluded: the chin moves there and uncovers the background.
        The value is the subsampling step, and a mask bool [n, m] of the subsampled region.
        """
        step = max(1, round(self.side_px / _STATISTICS_SIDE))
        box_xy = self.box_xy[::step, ::step]
        ellipse_xy = (box_xy - _RING_CENTRE) / _RING_RADII
        distance = np.hypot(ellipse_xy[..., 0], ellipse_xy[..., 1])
        ring = (distance > _RING_INNER) & (distance < 1.0) & (box_xy[..., 1] < _RING_BOTTOM)
        if self.visibility is not None:
            ring &= self.visibility[::step, ::step] > 0.99
        return step, ring

    def crop(self, image: UInt8Array) -> UInt8Array:
        """Return a view of the region in an image, uint8 [h, w, 3]."""
        return image[self.rows, self.columns]

    def part_around(self, box: FloatArray) -> tuple[slice, slice]:
        """Return rows and columns of the region around corners [P, 2] in box units."""
        corners = box @ self.box_to_image[:, :2].T + self.box_to_image[:, 2]
        corners -= [self.columns.start, self.rows.start]
        limits = np.array(self.radius.shape[::-1])
        x0, y0 = np.floor(corners.min(0)).astype(int).clip(0, limits)
        x1, y1 = np.ceil(corners.max(0)).astype(int).clip(0, limits)
        return slice(int(y0), int(y1)), slice(int(x0), int(x1))

    @cached_property
    def alone(self) -> MouthRegion:
        """This region relative to an image that contains only the region."""
        x, y = self.columns.start, self.rows.start
        return replace(
            self,
            rows=slice(0, self.rows.stop - y),
            columns=slice(0, self.columns.stop - x),
            box_to_image=self.box_to_image - np.array([[0, 0, x], [0, 0, y]], np.float32),
            origin_xy=(self.origin_xy[0] + x, self.origin_xy[1] + y),
        )

    def polygon_mask(self, polygon: FloatArray) -> FloatArray:
        """Return a soft mask, float32 [h, w] in [0, 1], of a convex polygon [P, 2] in pixels.

        The mask of a large region is computed at a smaller size, as wide blurs are slow.
        """
        corner = [self.columns.start, self.rows.start]
        mask: UInt8Array = np.zeros(self.radius.shape, np.uint8)
        cv2.fillConvexPoly(mask, np.rint(polygon - corner).astype(np.int32), 128)
        sigma = max(0.5, _OUTLINE_BLUR * self.side_px)
        factor = max(1, int(sigma / _MAX_OUTLINE_SIGMA))
        height, width = mask.shape
        if factor > 1:
            size = -(-width // factor), -(-height // factor)
            mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)
        doubled = mask.astype(np.float32) / 64
        blurred = cv2.GaussianBlur(doubled, (0, 0), sigma / factor).clip(0, 1)
        if factor > 1:
            blurred = cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(blurred, np.float32)

    def resample(
        self,
        field: FloatArray,
        interpolation: int = cv2.INTER_CUBIC,
        part: tuple[slice, slice] | None = None,
    ) -> FloatArray:
        """Resample a field over the box, [n, m] or [n, m, C], at the pixels of the region.

        `part` selects rows and columns of the region.
        """
        if self.side_px < 0.75 * field.shape[1]:
            size = max(8, round(self.side_px))
            field = np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_AREA))
        size_xy = np.array([[field.shape[1]], [field.shape[0]]])
        to_field = invert(self.box_to_image).astype(np.float64) * size_xy
        height, width = self.radius.shape
        rows, columns = part or (slice(0, height), slice(0, width))
        height, width = rows.stop - rows.start, columns.stop - columns.start
        corner = [self.columns.start + columns.start, self.rows.start + rows.start]
        to_field[:, 2] += to_field[:, :2] @ corner - 0.5
        flags, border = interpolation | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
        # Cubic interpolation is slow. A field that is enlarged by more is first enlarged by half.
        factor = 2 if self.side_px > _LARGE_ZOOM * field.shape[1] else 1
        first_size = -(-width // factor), -(-height // factor)
        scale = np.array([width / first_size[0], height / first_size[1]])
        to_field[:, 2] += to_field[:, :2] @ ((scale - 1) / 2)
        to_field[:, :2] *= scale
        warped = cv2.warpAffine(field, to_field, first_size, flags=flags, borderMode=border)
        if factor > 1:
            warped = cv2.resize(warped, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(warped, dtype=field.dtype)


@dataclass(frozen=True)
class PaintedMouth:
    """The generated mouth at the image's resolution.

    Attributes:
        image: float32 [h, w, 3] RGB, approximately in [0, 255].
        rgb_weight: weight of the model's RGB against the warped texture, float32 [h, w] in [0, 1].
        rgb_pixel_px: size of a pixel of the model's RGB in image pixels.
        texture: the warped texture at the frame's full size, uint8 [H, W, 3], if the region is
            reduced.
    """

    image: FloatArray
    rgb_weight: FloatArray
    rgb_pixel_px: float
    texture: UInt8Array | None = None


@dataclass(frozen=True)
class MouthBlur:
    """Blurs of the parts of a mouth: standard deviations in x and y, in image pixels.

    Attributes:
        texture: blur of the warped texture of the reference.
        rgb: blur of the model's RGB and its edge.
    """

    texture: tuple[float, float] = (0.0, 0.0)
    rgb: tuple[float, float] = (0.0, 0.0)


NO_BLUR = MouthBlur()


@dataclass(frozen=True)
class Texture:
    """A reference image, uint8 [H, W, 3], and the position of the mouth box in the image."""

    image: UInt8Array
    box_to_image: FloatArray


def to_channels(field: FloatArray) -> FloatArray:
    """Return a field [h, w] as three equal channels [h, w, 3].

    NumPy multiplies and adds fields [h, w, 1] with images several times more slowly.
    """
    return np.asarray(cv2.merge((field, field, field)), dtype=np.float32)


def sample_pixels(
    image: npt.NDArray[Any], xy: npt.NDArray[np.floating], interpolation: int
) -> FloatArray:
    """Sample an image [n, m] or [n, m, C] at pixel coordinates [h, w, 2]; keep the dtype."""
    xy = xy.astype(np.float32, copy=False)
    return cv2.remap(image, xy, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def box_to_image(transform: FloatArray, spec: AVSpec) -> FloatArray:
    """Return the transform from box units to image pixels, float32 [2, 3].

    `transform` maps image pixels to the canonical face.
    """
    inverse = invert(transform).astype(np.float64)
    corner = np.array([spec.mouth_x, spec.mouth_y]) - 0.5
    offset = inverse[:, :2] @ corner + inverse[:, 2]
    return np.hstack([inverse[:, :2] * spec.mouth_side, offset[:, None]]).astype(np.float32)


def _scaled(box_to_image: FloatArray, factor: float) -> FloatArray:
    """Return a transform [2, 3] to pixels of an image that is larger by a factor."""
    if factor == 1:
        return box_to_image
    scaled = factor * box_to_image.astype(np.float64)
    scaled[:, 2] += (factor - 1) / 2
    return scaled.astype(np.float32)


def find_mouth_region(
    transform: FloatArray, height: int, width: int, spec: AVSpec, *, reduce: bool = False
) -> MouthRegion | None:
    """Return the mouth region of an image, or None if it is completely outside the image.

    With `reduce`, a large region is that of the image reduced by the factor of the region, unless
    it contains pixels at the right or lower border that do not fill a pixel of the reduced image.
    """
    to_image = box_to_image(transform, spec)
    full_size, factor, rest = (height, width), 1, (0, 0)
    if reduce:
        factor = max(1, int(np.hypot(to_image[0, 0], to_image[1, 0]) / _REDUCED_SIDE))
        to_image = _scaled(to_image, 1 / factor)
        rest = width % factor, height % factor
        height, width = height // factor, width // factor
    centre = to_image[:, :2] @ ELLIPSE_CENTRE + to_image[:, 2]
    reach = _MARGIN * np.linalg.norm(to_image[:, :2] * ELLIPSE_RADII, axis=1)
    x0, y0 = np.clip(np.floor(centre - reach).astype(int), 0, [width, height]).tolist()
    x1, y1 = np.clip(np.ceil(centre + reach).astype(int) + 1, 0, [width, height]).tolist()
    if (x1 == width and rest[0]) or (y1 == height and rest[1]):
        return find_mouth_region(transform, *full_size, spec)
    if x1 <= x0 or y1 <= y0:
        return None
    pixels = np.empty((y1 - y0, x1 - x0, 2), np.float32)
    pixels[..., 0], pixels[..., 1] = np.arange(x0, x1), np.arange(y0, y1)[:, None]
    to_box = invert(to_image)
    to_ellipse = to_box - np.array([[0, 0, x] for x in ELLIPSE_CENTRE], dtype=np.float32)
    unit = cv2.transform(pixels, to_ellipse / ELLIPSE_RADII[:, None])
    radius = np.asarray(cv2.magnitude(unit[..., 0], unit[..., 1]), dtype=np.float32)
    box_xy = np.asarray(cv2.transform(pixels, to_box), dtype=np.float32)
    rows, columns = slice(y0, y1), slice(x0, x1)
    return MouthRegion(rows, columns, box_xy, to_image, radius, factor=factor)


def paint_mouth(
    fields: MouthFields, texture: Texture, region: MouthRegion, blur: MouthBlur = NO_BLUR
) -> PaintedMouth:
    """Warp the reference texture and blend in the model's RGB at the image's resolution.

    The flow is evaluated per image pixel and gives a position in the reference image, so the
    texture is resampled once. Where the flow of a photo is zero, its pixels are unchanged. `blur`
    is in pixels of the frame.
    """
    image, warped = _warp_texture(fields, texture, region, blur)
    rgb_pixel_px = region.side_px / fields.rgb.shape[1]
    weight = region.resample(fields.mask, cv2.INTER_LINEAR)
    if max(blur.rgb) > _MIN_BLUR_PX:
        sigmas = blur.rgb[0] / region.factor, blur.rgb[1] / region.factor
        rgb = region.resample(fields.rgb * np.float32(255))
        image += _blur(weight[..., None] * (rgb - image), sigmas)
        return PaintedMouth(image, _blur(weight, sigmas), rgb_pixel_px, warped)
    x, y, width, height = cv2.boundingRect((weight > 0).view(np.uint8))
    part = slice(y, y + height), slice(x, x + width)
    if width and height:
        rgb = region.resample(fields.rgb * np.float32(255), part=part)
        image[part] += to_channels(weight[part]) * (rgb - image[part])
    return PaintedMouth(image, weight, rgb_pixel_px, warped)


def _warp_texture(
    fields: MouthFields, texture: Texture, region: MouthRegion, blur: MouthBlur
) -> tuple[FloatArray, UInt8Array | None]:
    """Return the warped texture, float32 [h, w, 3], and, if reduced, at full size, uint8."""
    if region.factor == 1:
        image = _sample_texture(fields, texture, region, cv2.INTER_CUBIC)
        return _blur(image.astype(np.float32), blur.texture), None
    # Linear interpolation is several times as fast, and images of this size have no detail of
    # single pixels.
    full = _sample_texture(fields, texture, region, cv2.INTER_LINEAR)
    warped = np.asarray(_blur(full, blur.texture), np.uint8)
    size = region.radius.shape[::-1]
    small = cv2.resize(warped, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32), warped


def _sample_texture(
    fields: MouthFields, texture: Texture, region: MouthRegion, interpolation: int
) -> FloatArray:
    """Return the warped texture, uint8 [h, w, 3], at the frame's full size."""
    whole = slice(0, region.radius.shape[0]), slice(0, region.radius.shape[1])
    places = _texture_pixels(region.resample(fields.flow), texture, region, whole)
    if fields.sides is None or fields.lips is None:
        return sample_pixels(texture.image, places, interpolation)
    part = region.part_around(lip_line_box(fields.lips))
    sides = np.split(region.resample(fields.sides, part=part), 2, axis=2)
    upper, lower = (_texture_pixels(side, texture, region, part) for side in sides)
    side_px, factor = region.side_px, region.factor
    is_lower, seam = lip_sides(fields.lips, region.box_xy[part], side_px, factor)
    path = lower - upper
    seam *= (np.abs(path[..., 1]) - 1).clip(0, 1)
    rows, columns = (slice(factor * one.start, factor * one.stop) for one in part)
    places[rows, columns] = upper + cv2.merge((is_lower, is_lower)) * path
    image = sample_pixels(texture.image, places, interpolation)
    if seam.max(initial=0) > _MIN_SEAM:
        # The row at a jump of several pixels is a mix of its neighbours.
        shown = image[rows, columns]
        mean = cv2.blur(shown, (1, 3), borderType=cv2.BORDER_REPLICATE).astype(np.float32)
        mixed = shown + to_channels(1.5 * seam) * (mean - shown)
        image[rows, columns] = mixed.clip(0, 255)
    return image


def _texture_pixels(
    flow: FloatArray, texture: Texture, region: MouthRegion, part: tuple[slice, slice]
) -> FloatArray:
    """Return the texture's pixels [h, w, 2], at full size, for the flow of a part of the region."""
    places = cv2.transform(region.box_xy[part] + flow, texture.box_to_image)
    if region.factor > 1:
        places = cv2.resize(places, None, fx=region.factor, fy=region.factor)
    return np.asarray(places, np.float32)


def _blur(field: FloatArray, sigmas: tuple[float, float]) -> FloatArray:
    """Blur a field [h, w] or [h, w, C] by standard deviations in x and y, in pixels."""
    if max(sigmas) <= _MIN_BLUR_PX:
        return field
    sigma_x, sigma_y = (max(sigma, 0.01) for sigma in sigmas)
    blurred = cv2.GaussianBlur(field, (0, 0), sigma_x, sigmaY=sigma_y)
    return np.asarray(blurred, dtype=field.dtype)
