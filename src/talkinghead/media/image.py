"""Conversion of decoded frames to upright 8-bit RGB, and colour tags of video."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)
from PIL import ExifTags, Image

from talkinghead.media.decoding.planes import (
    Orientation,
    Planes,
    frame_of_planes,
    plane_array,
    side_data,
)
from talkinghead.media.decoding.tone_mapping import HDR_PIX_FMT, HDRFormat, ToneMapper, is_hdr
from talkinghead.media.decoding.video_image import (
    SDR_PIX_FMT,
    ImageLike,
    VideoImage,
    YUVColours,
)
from talkinghead.types import UInt8Array

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

# The eight EXIF orientations as matrices in the format of `display_matrix`.
_ORIENTATIONS = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, 1), (-1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, -1), (1, 0)),
}
# With default flags, swscale darkens images by 1 to 2 levels. These flags prevent this; they cost
# 1 ms at 512 x 512.
_UNBIASED = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_UNSPECIFIED = 2
# Tag AVCOL_SPC_SMPTE170M, which denotes the same matrix as ITU601 (BT.470 BG).
_SMPTE170M = 6
_MATRICES = {*map(int, Colorspace), _SMPTE170M}
# Tags of YUV frames that contradict them (RGB, reserved), which players ignore; BT.2020, also with
# constant luminance; and the matrices that follow from the primaries.
_CONTRADICTORY, _BT2020, _BT2020_CONSTANT, _FROM_PRIMARIES = {0, 3}, 9, 10, {12, 13}
UNSUPPORTED_MATRICES = {8: "YCgCo", 11: "SMPTE ST 2085", 14: "ICtCp", 15: "IPT-C2"}
"""Colour matrices that cannot be converted, by FFmpeg's number."""
UNSUPPORTED_FORMATS = {"yaf32le", "yaf32be"}
"""Pixel formats whose conversion by FFmpeg 8 aborts the process."""
_HD_LINES = 720
# Formats of which a `VideoImage` can be made: as they are, and after a conversion to 8 bits.
_PLANAR_420 = {"yuv420p", "yuvj420p"}
_FORMATS_420 = _PLANAR_420 | {"nv12", "p010le", "yuv420p10le", "yuv420p12le"}


@dataclass(frozen=True)
class ColourTags:
    """Colour tags of a video as FFmpeg constants; limited-range BT.709 by default.

    Images are converted by matrix and range only. Primaries and transfer are copied to the output,
    as processing stays in the video's own RGB space.
    """

    matrix: int = Colorspace.ITU709
    range: int = ColorRange.MPEG
    primaries: int = ColorPrimaries.BT709
    transfer: int = ColorTrc.BT709

    @classmethod
    def of(cls, frame: AVFrame) -> ColourTags:
        """Return the tags of a frame's image; BT.709 for RGB, HDR and unsupported matrices."""
        matrix = guess_matrix(frame)
        is_converted = frame.format.is_rgb or frame.format.has_palette or is_hdr(frame)
        if is_converted or matrix not in _MATRICES:
            return cls()
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        colour_range = ColorRange.JPEG if full else ColorRange.MPEG
        return cls(matrix, colour_range, int(frame.color_primaries), int(frame.color_trc))


BT709 = ColourTags()
"""Colour tags of output that has no source video."""
# Colours of tone-mapped images.
_SDR_COLOURS = YUVColours(BT709.matrix, BT709.range)


def guess_matrix(frame: AVFrame) -> int:
    """Return the YUV-to-RGB matrix of a frame, as an FFmpeg constant.

    Untagged frames use BT.601 below 720 lines and BT.709 from 720 lines on. BT.2020 with constant
    luminance is converted as if its luminance were not constant, which is close for skin.
    """
    matrix = int(frame.colorspace)
    if frame.format.is_rgb:
        return matrix
    if matrix in _FROM_PRIMARIES:
        is_wide = frame.color_primaries == ColorPrimaries.BT2020
        return _BT2020 if is_wide else Colorspace.ITU709
    if matrix == _BT2020_CONSTANT:
        return _BT2020
    if matrix != _UNSPECIFIED and matrix not in _CONTRADICTORY:
        return matrix
    return Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601


class RGBConverter:
    """Converter of the frames of a stream to upright uint8 RGB images of equal size.

    Each frame's colour matrix and range are used; untagged frames are BT.601 below 720 lines and
    BT.709 from 720 on, as players assume. HDR10 and HLG are tone-mapped to BT.709. Alpha is
    composited over white. All images get the size of the first, as a stream may change its
    resolution.

    Args:
        pixel_aspect: width of a stored pixel divided by its height; images are resized to square
            pixels.
        matrix: orientation of all frames as in `display_matrix`; read from each frame if None.

    Attributes:
        colour: tags of the first frame.
        hdr: HDR format of the first frame, None without HDR.
    """

    def __init__(
        self, pixel_aspect: float = 1.0, matrix: npt.NDArray[np.float64] | None = None
    ) -> None:
        self._aspect = pixel_aspect if 0.2 < pixel_aspect < 5 else 1.0
        self._size: tuple[int, int] | None = None
        self._rotation: int | None = None
        self._is_fixed = matrix is not None
        self._orientation = Orientation() if matrix is None else Orientation.of(matrix)
        self._reformatter = VideoReformatter()
        self.colour = ColourTags()
        self.hdr: HDRFormat | None = None

    def __call__(self, frame: AVFrame) -> UInt8Array:
        """Return the image uint8 [height, width, 3] RGB of a decoded frame."""
        size = self._measure(frame)
        return np.ascontiguousarray(self._orientation.apply(self._to_rgb(frame, size)))

    def _measure(self, frame: AVFrame) -> tuple[int, int]:
        """Read the orientation of a frame, and return the width and height of all images."""
        if not self._is_fixed and frame.rotation != self._rotation:
            # Reading the matrix is slow, so this is done only when the rotation changes.
            self._rotation = frame.rotation
            self._orientation = Orientation.of(display_matrix(frame))
        if self._size is None:
            even_width = 2 * max(1, round(frame.width * self._aspect / 2))
            self._size = (frame.width if self._aspect == 1 else even_width, frame.height)
            self.colour = ColourTags.of(frame)
            self.hdr = None if _has_alpha(frame) else HDRFormat.of(frame)
        return self._size

    def _to_rgb(self, frame: AVFrame, size: tuple[int, int]) -> UInt8Array:
        has_alpha = _has_alpha(frame)
        if is_hdr(frame) and not has_alpha:
            shown, tone_mapper = self._hdr_frame(frame, size)
            planes = plane_array(shown, 0), plane_array(shown, 1), plane_array(shown, 2)
            padded = frame_of_planes(_even(planes), HDR_PIX_FMT)
            image = VideoImage(padded, Orientation(), _SDR_COLOURS, tone_mapper).to_array()
            return image[: size[1], : size[0]]
        matrix = guess_matrix(frame)
        shown = self._reformatter.reformat(
            frame,
            *size,
            format="rgba" if has_alpha else "rgb24",
            src_colorspace=None if matrix == frame.colorspace else matrix,
            interpolation=_UNBIASED,
            threads=1,  # More threads are slower.
        )
        image = cast(UInt8Array, shown.to_ndarray())
        return over_white(image) if has_alpha else image

    def _hdr_frame(self, frame: AVFrame, size: tuple[int, int]) -> tuple[AVFrame, ToneMapper]:
        """Return an HDR frame in 4:2:0 with 10 bits, and its conversion."""
        hdr = HDRFormat.of(frame)
        assert hdr is not None
        if frame.format.name == HDR_PIX_FMT and size == (frame.width, frame.height):
            return frame, hdr.tone_mapper
        shown = self._reformatter.reformat(
            frame,
            *size,
            format=HDR_PIX_FMT,
            src_colorspace=None if frame.format.is_rgb else hdr.matrix,
            dst_colorspace=hdr.matrix,
            dst_color_range=hdr.range,
            interpolation=_UNBIASED,
            threads=1,
        )
        return shown, hdr.tone_mapper


class ImageConverter(RGBConverter):
    """Converter of the frames of a stream to images, which stay in YUV as far as possible.

    Frames in 4:2:0 with even sizes become a `VideoImage`, others RGB. See `RGBConverter`.

    Args:
        pixel_aspect: see `RGBConverter`.
        keep_hdr: see `VideoImage`.
    """

    def __init__(self, pixel_aspect: float = 1.0, *, keep_hdr: bool = True) -> None:
        super().__init__(pixel_aspect)
        self._keep_hdr = keep_hdr

    def __call__(self, frame: AVFrame) -> ImageLike:  # type: ignore[override]
        """Return the upright image of a decoded frame."""
        size = self._measure(frame)
        found = None if size[0] % 2 or size[1] % 2 else self._yuv_frame(frame, size)
        # The output has the matrix and the range of the first frame.
        if found is None or found[1] != (self.colour.matrix, self.colour.range):
            return super().__call__(frame)
        shown, colours, tone_mapper = found
        return VideoImage(shown, self._orientation, colours, tone_mapper, self._keep_hdr)

    def _yuv_frame(
        self, frame: AVFrame, size: tuple[int, int]
    ) -> tuple[AVFrame, YUVColours, ToneMapper | None] | None:
        """Return a frame in 4:2:0 and its conversion to RGB, None for other frames."""
        if is_hdr(frame) and not _has_alpha(frame):
            shown, tone_mapper = self._hdr_frame(frame, size)
            return shown, _SDR_COLOURS, tone_mapper
        tags = ColourTags.of(frame)
        if frame.format.name not in _FORMATS_420 or tags.matrix != guess_matrix(frame):
            return None
        colours = YUVColours(tags.matrix, tags.range)
        if frame.format.name in _PLANAR_420 and size == (frame.width, frame.height):
            return frame, colours, None
        shown = self._reformatter.reformat(
            frame, *size, format=SDR_PIX_FMT, interpolation=_UNBIASED, threads=1
        )
        return shown, colours, None


def _has_alpha(frame: AVFrame) -> bool:
    return frame.format.has_palette or any(c.is_alpha for c in frame.format.components)


def _even(planes: Planes) -> Planes:
    """Return planes in 4:2:0 with an even size, by repetition of the last row and column."""
    y, u, v = planes
    bottom, right = 2 * u.shape[0] - y.shape[0], 2 * u.shape[1] - y.shape[1]
    if bottom or right:
        y = cv2.copyMakeBorder(y, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return y, u, v


def display_matrix(frame: AVFrame) -> npt.NDArray[np.float64]:
    """Return the orientation of a frame as a matrix, float64 [2, 2].

    A stored pixel (x, y), with y pointing down, is displayed at (x, y) @ matrix, up to a shift.
    """
    data = side_data(frame, "DISPLAYMATRIX")
    if not data:
        angle = np.radians(frame.rotation)
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2] / 65536
    return matrix if np.any(matrix) else np.eye(2)


def exif_matrix(path: Path | str) -> npt.NDArray[np.float64]:
    """Return the EXIF orientation of a still image as a matrix; see `display_matrix`.

    Pillow reads the orientation from the header: PyAV 18 fails or crashes on the side data of
    images with EXIF or a colour profile.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        orientation = 1
    return np.array(_ORIENTATIONS.get(orientation, _ORIENTATIONS[1]), dtype=np.float64)


def over_white(image: UInt8Array) -> UInt8Array:
    """Composite an image uint8 [H, W, 4] with straight alpha over white: uint8 [H, W, 3]."""
    alpha = image[..., 3:].astype(np.uint16)
    if alpha.min() == 255:
        return np.ascontiguousarray(image[..., :3])
    blended = image[..., :3] * alpha + 255 * (255 - alpha)
    # Exact division by 255 with rounding; a shift by 8 would not be exact.
    return ((blended + 127) // 255).astype(np.uint8)
