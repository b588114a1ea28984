"""Images of a video of which only the needed parts are converted to RGB.

Most of a frame does not change in a prediction. It stays in the planes that were decoded, so that
it is neither converted nor rounded, and large frames need little time and memory.
"""

from __future__ import annotations

import math
import threading
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame as AVFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from talkinghead.media.decoding.planes import (
    Orientation,
    PlaneArray,
    Planes,
    frame_of_planes,
    plane_array,
)
from talkinghead.media.decoding.tone_mapping import ToneMapper
from talkinghead.types import UInt8Array

SDR_PIX_FMT = "yuv420p"

# Converted parts are aligned to this number of pixels, so that the sizes of few conversions occur,
# and enlarged by this number, as the chroma is interpolated.
_ALIGNMENT, _MARGIN = 16, 4
# With default flags, swscale darkens images by 1 to 2 levels.
_UNBIASED = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Weights of red and blue in luma, and the scales of luma and chroma in limited range.
_LUMA = {
    int(Colorspace.ITU709): (0.2126, 0.0722),
    int(Colorspace.ITU601): (0.299, 0.114),
    6: (0.299, 0.114),
}
_LIMITED = 255 / 219, 255 / 224
_local = threading.local()


class YUVColours(NamedTuple):
    """Conversion of the planes of a frame to RGB.

    Both are FFmpeg constants.
    """

    matrix: int
    range: int


class DecodedFrame(NamedTuple):
    """A frame of a video.

    Attributes:
        image: the upright image.
        time_s: time since the first frame in seconds.
        pts: timestamp in the file, None if unknown.
        is_key: whether decoding can start here.
    """

    image: UInt8Array | VideoImage
    time_s: Fraction
    pts: int | None = None
    is_key: bool = False


class _Part(NamedTuple):
    """A converted part of an image."""

    rows: slice
    columns: slice
    pixels: UInt8Array


class VideoImage:
    """An image of a video as YUV planes, from which RGB is made where it is needed.

    HDR is tone-mapped at once, as the output needs the whole image, and several stages a part.
    Immutable, and safe for concurrent callers.

    Args:
        frame: a frame in 4:2:0 with even sizes: yuv420p, or yuv420p10le for HDR.
        orientation: makes the frame upright.
        colours: conversion of 8-bit planes to RGB.
        tone_mapper: for HDR, the conversion to 8-bit planes with these colours.
        keep_hdr: keep the HDR frame, which needs twice the memory of the converted one.

    Attributes:
        shape: height and width of the upright image, and 3.
        nbytes: size of the whole image as uint8 RGB.
        colours: conversion to RGB.
        tone_mapper: conversion that was applied, None without HDR.
    """

    def __init__(
        self,
        frame: AVFrame,
        orientation: Orientation,
        colours: YUVColours,
        tone_mapper: ToneMapper | None = None,
        keep_hdr: bool = True,
    ) -> None:
        stored = plane_array(frame, 0), plane_array(frame, 1), plane_array(frame, 2)
        self._planes: Planes = stored if tone_mapper is None else tone_mapper.map_planes(stored)
        self._hdr_planes = stored if tone_mapper is not None and keep_hdr else None
        self._orientation, self.colours, self.tone_mapper = orientation, colours, tone_mapper
        size = (
            (frame.width, frame.height) if orientation.transposed else (frame.height, frame.width)
        )
        self.shape = (*size, 3)
        self.nbytes = math.prod(self.shape)
        self._part: _Part | None = None
        self._reduced: dict[int, _Part] = {}

    def crop(self, rows: slice, columns: slice) -> UInt8Array:
        """Return a part as uint8 [h, w, 3] RGB, which must not be modified.

        The last part is kept, as several parts of a face are usually needed.
        """
        part = self._part
        if part is None or not self._covers(part, rows, columns):
            part = self._convert(rows, columns, 1)
            self._part = part
        return part.pixels[_within(rows, part.rows), _within(columns, part.columns)]

    def reduced(self, rows: slice, columns: slice, factor: int) -> _Part:
        """Return a part reduced by a power of two, by averaging of pixels.

        The rows and columns of the result, which contain those given, are multiples of `factor` or
        end with the image. The last part is kept, as tracking and several measurements use the same
        face.
        """
        part = self._reduced.get(factor)
        rows, columns = self._aligned(rows, columns, factor)
        if part is None or not _contains(part, rows, columns):
            part = self._reduced[factor] = self._convert_aligned(rows, columns, factor)
        place = tuple(
            slice((inner.start - outer.start) // factor, -(-(inner.stop - outer.start) // factor))
            for inner, outer in ((rows, part.rows), (columns, part.columns))
        )
        return _Part(rows, columns, part.pixels[place])

    def to_array(self) -> UInt8Array:
        """Return the whole image, uint8 [height, width, 3] RGB."""
        height, width, _ = self.shape
        return self._convert(slice(0, height), slice(0, width), 1).pixels

    def thumbnail(self, step: int) -> UInt8Array:
        """Return every `step`-th pixel of the image, uint8 [h, w, 3] RGB."""
        chroma = max(1, step // 2)
        step = 2 * chroma
        y, u, v = self._planes
        part = y[::step, ::step], u[::chroma, ::chroma], v[::chroma, ::chroma]
        return self._orientation.apply(self._to_rgb(part))

    def upright_planes(self) -> Planes:
        """Return the planes of the upright image in standard dynamic range."""
        y, u, v = (self._orientation.apply(plane) for plane in self._planes)
        return y, u, v

    def upright_hdr_planes(self) -> Planes | None:
        """Return the planes of the upright HDR image, None if they were not kept."""
        if self._hdr_planes is None:
            return None
        y, u, v = (self._orientation.apply(plane) for plane in self._hdr_planes)
        return y, u, v

    def _covers(self, part: _Part, rows: slice, columns: slice) -> bool:
        """Return whether a part contains others with the margin, except at the image's edges."""
        return all(
            outer.start <= max(0, inner.start - _MARGIN)
            and min(length, inner.stop + _MARGIN) <= outer.stop
            for outer, inner, length in (
                (part.rows, rows, self.shape[0]),
                (part.columns, columns, self.shape[1]),
            )
        )

    def _aligned(self, rows: slice, columns: slice, factor: int) -> tuple[slice, slice]:
        """Return the rows and columns that are converted for a part, with the margin."""
        step = max(_ALIGNMENT, 2 * factor)
        rows, columns = (
            slice(
                max(0, (part.start - _MARGIN) // step * step),
                min(length, -(-(part.stop + _MARGIN) // step) * step),
            )
            for part, length in ((rows, self.shape[0]), (columns, self.shape[1]))
        )
        return rows, columns

    def _convert(self, rows: slice, columns: slice, factor: int) -> _Part:
        return self._convert_aligned(*self._aligned(rows, columns, factor), factor)

    def _convert_aligned(self, rows: slice, columns: slice, factor: int) -> _Part:
        height, width, _ = self.shape
        stored = self._orientation.stored(rows, columns, height, width)
        halves = tuple(slice(part.start // 2, part.stop // 2) for part in stored)
        y, u, v = (
            plane[stored if index == 0 else halves] for index, plane in enumerate(self._planes)
        )
        if factor > 1:
            size = -(-y.shape[1] // factor), -(-y.shape[0] // factor)
            y, u, v = (_reduce(plane, size) for plane in (y, u, v))
        return _Part(rows, columns, self._orientation.apply(self._to_rgb((y, u, v))))

    def _to_rgb(self, planes: Planes) -> UInt8Array:
        """Return planes in 4:2:0 or 4:4:4 as uint8 [h, w, 3] RGB."""
        is_reduced = planes[0].shape == planes[1].shape
        matrix = _rgb_matrix(*self.colours)
        if is_reduced and matrix is not None:
            # Eight times as fast as swscale; the levels differ by at most 1.
            return np.asarray(cv2.transform(cv2.merge(planes), matrix), np.uint8)
        frame = frame_of_planes(planes, "yuv444p" if is_reduced else SDR_PIX_FMT)
        frame.color_range = self.colours.range
        frame.colorspace = self.colours.matrix
        shown = _reformatter().reformat(frame, format="rgb24", interpolation=_UNBIASED, threads=1)
        return np.asarray(shown.to_ndarray(), np.uint8)


ImageLike: TypeAlias = UInt8Array | VideoImage
"""An image uint8 [H, W, 3] RGB, or an image of a video."""


def crop_image(image: ImageLike, rows: slice, columns: slice) -> UInt8Array:
    """Return a part of an image, uint8 [h, w, 3] RGB; a view of an array."""
    if isinstance(image, VideoImage):
        return image.crop(rows, columns)
    return image[rows, columns]


def to_array(image: ImageLike) -> UInt8Array:
    """Return a whole image as uint8 [H, W, 3] RGB."""
    return image.to_array() if isinstance(image, VideoImage) else image


def image_around(
    image: ImageLike, points: npt.NDArray[np.floating], pixels_per_sample: float
) -> tuple[UInt8Array, npt.NDArray[np.float64]]:
    """Return the part of an image that contains points [n, 2], for sampling.

    Args:
        image: the image.
        points: positions in pixels, such as the corners of the sampled area.
        pixels_per_sample: distance of the samples; of images of a video, pixels are averaged if
            the distance is large.

    Returns:
        The part, uint8 [h, w, 3], or an array itself; and the map float64 [2, 3] from pixels of
        the image to pixels of the part.
    """
    if not isinstance(image, VideoImage):
        return image, np.eye(2, 3)
    height, width, _ = image.shape
    factor = 1
    while 4 * factor <= pixels_per_sample and 2 * factor <= min(height, width) // 8:
        factor *= 2
    limits = np.array([width, height])
    low = np.floor(points.min(0)).astype(int).clip(2, limits - 2) - 2
    high = np.ceil(points.max(0)).astype(int).clip(2, limits - 2) + 2
    rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    if factor == 1:
        offset = -low.astype(np.float64)
        return image.crop(rows, columns), np.column_stack([np.eye(2), offset])
    part = image.reduced(rows, columns, factor)
    shape = np.array(part.pixels.shape[1::-1])
    size = np.array([part.columns.stop - part.columns.start, part.rows.stop - part.rows.start])
    scale = shape / size
    origin = np.array([part.columns.start, part.rows.start])
    return part.pixels, np.column_stack([np.diag(scale), (0.5 - origin) * scale - 0.5])


def sample_affine(
    image: ImageLike, to_image: npt.NDArray[np.floating], size: tuple[int, int]
) -> UInt8Array:
    """Sample an image at the positions `to_image` [2, 3] of a grid: uint8 [size[1], size[0], 3].

    Positions outside the image have the colour of its edge.
    """
    corners = np.array([(x, y, 1) for x in (0, size[0]) for y in (0, size[1])]) @ to_image.T
    scale = math.hypot(*to_image[:, 0])
    part, to_part = image_around(image, corners, scale)
    chained = to_part[:, :2] @ to_image
    chained[:, 2] += to_part[:, 2]
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(part, chained, size, flags=flags, borderMode=border), np.uint8)


@lru_cache(maxsize=8)
def _rgb_matrix(matrix: int, colour_range: int) -> npt.NDArray[np.float32] | None:
    """Return the affine map of 8-bit levels YUV to RGB, float32 [3, 4]; None if unknown."""
    if matrix not in _LUMA:
        return None
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0) if colour_range == ColorRange.JPEG else (*_LIMITED, 16)
    v_red, u_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    linear = np.array(
        [
            [luma, 0, v_red],
            [luma, -u_blue * blue / green, -v_red * red / green],
            [luma, u_blue, 0],
        ]
    )
    return np.column_stack([linear, -linear @ [black, 128, 128]]).astype(np.float32)


def _contains(part: _Part, rows: slice, columns: slice) -> bool:
    return all(
        outer.start <= inner.start and inner.stop <= outer.stop
        for outer, inner in ((part.rows, rows), (part.columns, columns))
    )


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _reduce(plane: PlaneArray, size: tuple[int, int]) -> PlaneArray:
    if plane.shape == size[::-1]:
        return plane
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA))


def _reformatter() -> VideoReformatter:
    """Return the converter of this thread, which keeps its tables between calls."""
    if not hasattr(_local, "reformatter"):
        _local.reformatter = VideoReformatter()
    found: Any = _local.reformatter
    return found
