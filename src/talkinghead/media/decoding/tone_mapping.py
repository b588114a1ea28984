"""Conversion between high dynamic range (HDR10 and HLG) and standard dynamic range in BT.709."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from talkinghead.media.decoding.planes import PlaneArray, Planes, side_data
from talkinghead.types import UInt8Array

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

HDR_PIX_FMT = "yuv420p10le"
"""Pixel format of HDR frames."""

_HDR_TRANSFERS = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
_BT2020 = 9
# Weights of red and blue in luma.
_LUMA = {Colorspace.ITU709: (0.2126, 0.0722), _BT2020: (0.2627, 0.0593)}
# Entries of the look-up tables in each dimension. Most of a table over YUV is outside RGB.
_YUV_SIZE, _RGB_SIZE = 65, 33
# Fixed point numbers of the tables: units per 10-bit level, and offset of the luma.
_UNIT, _LUMA_UNIT, _LUMA_OFFSET = 64, 32, 32_768

# Colours in a row of the image that libswscale maps.
_ROW = 512

# Size of the frames in which libavfilter interpolates the look-up tables.
_TABLE_WIDTH, _TABLE_HEIGHT = 1024, 64
_TIME_BASE = Fraction(1, 25)

_Floats = npt.NDArray[np.float64]
_UInt16Array = npt.NDArray[np.uint16]


def is_hdr(frame: AVFrame) -> bool:
    """Return whether a frame has the transfer function of HDR10 (PQ) or HLG."""
    return int(frame.color_trc) in _HDR_TRANSFERS


@dataclass(frozen=True)
class HDRFormat:
    """Colours of an HDR video, as FFmpeg constants.

    Attributes:
        transfer: transfer function.
        primaries: primaries.
        matrix: YUV-to-RGB matrix.
        range: range of the levels.
        mastering_display: primaries and luminance of the display on which the video was made, in
            the notation of x265; None if unknown.
        max_light: maximum light levels of a pixel and of the mean of a frame, in cd/m2; None if
            unknown.
    """

    transfer: int
    primaries: int = _BT2020
    matrix: int = _BT2020
    range: int = ColorRange.MPEG
    mastering_display: str | None = None
    max_light: tuple[int, int] | None = None

    @classmethod
    def of(cls, frame: AVFrame) -> HDRFormat | None:
        """Return the format of a frame, or None without HDR."""
        if not is_hdr(frame):
            return None
        matrix = int(frame.colorspace)
        is_full = frame.color_range == ColorRange.JPEG
        return cls(
            int(frame.color_trc),
            int(frame.color_primaries),
            matrix if matrix in _LUMA else _BT2020,
            ColorRange.JPEG if is_full else ColorRange.MPEG,
            _mastering_display(side_data(frame, "MASTERING_DISPLAY_METADATA")),
            _max_light(side_data(frame, "CONTENT_LIGHT_LEVEL")),
        )

    @property
    def tone_mapper(self) -> ToneMapper:
        """The conversion of this format."""
        return _tone_mapper(self.transfer, self.primaries, self.matrix, self.range)


class ToneMapper:
    """A converter of HDR images to BT.709 with standard dynamic range, and back.

    Colours are mapped by libswscale: reference white (203 cd/m2) becomes white, and brighter
    colours are compressed. Its result for all colours is kept in tables, as it is too slow for
    every frame. Safe for concurrent callers. `transfer`, `primaries` and `matrix` (BT.2020 or
    BT.709) are FFmpeg constants of the HDR images.
    """

    def __init__(self, transfer: int, primaries: int, matrix: int, full_range: bool) -> None:
        self._tags = transfer, primaries
        self._matrix, self._full_range = matrix, full_range
        codes = np.linspace(0, 65_535 / _UNIT, _YUV_SIZE)
        v, u, y = np.meshgrid(codes, codes, codes, indexing="ij")
        greys = np.full((1024, 3), 512.0)
        greys[:, 0] = np.arange(1024)
        colours = np.stack([y, u, v], -1)
        # Every call of libswscale takes two seconds, so there is one.
        levels = self._to_sdr(np.concatenate([colours.reshape(-1, 3), greys]))
        mapped, luma = levels[:-1024].reshape(colours.shape), levels[-1024:, 0]
        # The mapped luma depends mostly on the input's luma. The table has only the difference from
        # the luma of greys, so that it does not blur fine detail of the luma.
        self._curve = np.rint(luma * _LUMA_UNIT).astype(np.uint16)
        # OpenCV is faster than `np.take`, and needs an entry for every value of the type.
        self._luma_table = np.pad(self._curve, (0, 65_536 - 1024), "edge")
        mapped[..., 0] -= np.interp(y, np.arange(1024), self._curve / _LUMA_UNIT)
        mapped[..., 0] = mapped[..., 0] * _LUMA_UNIT + _LUMA_OFFSET
        mapped[..., 1:] *= _UNIT
        self._table = _ColourTable((mapped / 65_535).clip(0, 1))

    def map_planes(self, planes: Planes) -> Planes:
        """Return the planes of an image in BT.709, limited range.

        Args:
            planes: 10-bit levels uint16, [h, w] and twice [h / 2, w / 2] or [h, w].

        Returns:
            8-bit levels uint8 of the same shapes.
        """
        y, u, v = planes
        mapped = tuple(np.empty(plane.shape, np.uint8) for plane in planes)
        ratio = y.shape[0] // u.shape[0]
        for rows in _strips(*u.shape):
            whole = slice(ratio * rows.start, ratio * rows.stop)
            self._map_strip((y[whole], u[rows], v[rows]), mapped, rows, whole)
        return cast(Planes, mapped)

    def _map_strip(
        self, strip: Planes, mapped: tuple[PlaneArray, ...], rows: slice, whole: slice
    ) -> None:
        y, u, v = strip
        height, width = u.shape
        mean: PlaneArray = cv2.resize(y, (width, height), interpolation=cv2.INTER_AREA)
        small, new_u, new_v = self._table(mean << 6, u << 6, v << 6)
        wide = cv2.resize(small, (y.shape[1], height), interpolation=cv2.INTER_NEAREST)
        ratio, scale = y.shape[0] // height, 1 / (4 * _LUMA_UNIT)
        for row in range(ratio):
            luma = cv2.add(cv2.LUT(y[row::ratio], self._luma_table), wide)
            luma = cv2.subtract(luma, (_LUMA_OFFSET,))  # type: ignore[call-overload]
            cv2.convertScaleAbs(luma, mapped[0][whole][row::ratio], alpha=scale)
        cv2.convertScaleAbs(new_u, mapped[1][rows], alpha=1 / (4 * _UNIT))
        cv2.convertScaleAbs(new_v, mapped[2][rows], alpha=1 / (4 * _UNIT))

    def unmap(self, image: UInt8Array) -> npt.NDArray[np.float32]:
        """Return the HDR levels of an SDR image uint8 [h, w, 3] RGB: YUV float32 [h, w, 3].

        The levels are those of 10 bits. Highlights that the tone mapping compressed are expanded
        as far as standard dynamic range distinguishes them.
        """
        levels = image.astype(np.uint16) * 257
        mapped = np.empty(image.shape, np.float32)
        for rows in _strips(*image.shape[:2]):
            red, green, blue = (np.ascontiguousarray(levels[rows][..., i]) for i in range(3))
            mapped[rows] = np.stack(self._inverse_table(red, green, blue), -1) / np.float32(_UNIT)
        return mapped

    @cached_property
    def _inverse_table(self) -> _ColourTable:
        transfer, primaries = self._tags
        steps = np.linspace(0, 1, _RGB_SIZE)
        blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
        grid = np.stack([red, green, blue], -1)
        to_hdr = (ColorTrc.BT709, ColorPrimaries.BT709), (transfer, primaries)
        yuv = _rgb_to_yuv(_map_colours(grid, *to_hdr), self._matrix, self._full_range)
        return _ColourTable((yuv * _UNIT / 65_535).clip(0, 1))

    def _to_sdr(self, yuv: _Floats) -> _Floats:
        """Return 10-bit levels [..., 3] of the HDR image as 10-bit levels in BT.709."""
        rgb = _yuv_to_rgb(yuv, self._matrix, self._full_range).clip(0, 1)
        to_sdr = self._tags, (int(ColorTrc.BT709), int(ColorPrimaries.BT709))
        return _rgb_to_yuv(_map_colours(rgb, *to_sdr), Colorspace.ITU709, False)


@lru_cache(maxsize=4)
def _tone_mapper(transfer: int, primaries: int, matrix: int, colour_range: int) -> ToneMapper:
    return ToneMapper(transfer, primaries, matrix, colour_range == ColorRange.JPEG)


def _strips(height: int, width: int) -> Iterator[slice]:
    """Yield slices of rows with at most `_ColourTable.MAX_PIXELS` pixels."""
    step = max(1, _ColourTable.MAX_PIXELS // max(1, width))
    for start in range(0, height, step):
        yield slice(start, min(height, start + step))


def _map_colours(rgb: _Floats, source: tuple[int, int], target: tuple[int, int]) -> _Floats:
    """Return colours [..., 3] in [0, 1] with another transfer function and other primaries."""
    levels = np.rint(rgb.reshape(-1, 3) * 65_535).astype(np.uint16)
    num_rows = -(-len(levels) // _ROW)
    rows = np.zeros((num_rows * _ROW, 3), np.uint16)
    rows[: len(levels)] = levels
    frame = av.VideoFrame.from_ndarray(rows.reshape(num_rows, _ROW, 3), format="rgb48le")
    frame.color_trc, frame.color_primaries = source
    mapped = VideoReformatter().reformat(
        frame,
        format="rgb48le",
        dst_color_trc=target[0],
        dst_color_primaries=target[1],
        threads=1,
    )
    found = mapped.to_ndarray().reshape(-1, 3)[: len(levels)]
    return np.asarray(found.reshape(rgb.shape) / 65_535, np.float64)


def _yuv_to_rgb(yuv: _Floats, matrix: int, full_range: bool) -> _Floats:
    """Return 10-bit levels [..., 3] as RGB in [0, 1], beyond it for impossible levels."""
    red, blue = _LUMA[matrix]
    y = yuv[..., 0] / 1023 if full_range else (yuv[..., 0] - 64) / 876
    u, v = (2 * (yuv[..., i] - 512) / (1023 if full_range else 896) for i in (1, 2))
    r, b = y + (1 - red) * v, y + (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1)


def _rgb_to_yuv(rgb: _Floats, matrix: int, full_range: bool) -> _Floats:
    """Return RGB [..., 3] in [0, 1] as 10-bit levels."""
    red, blue = _LUMA[matrix]
    r, g, b = (rgb[..., i] for i in range(3))
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    if full_range:
        return np.stack([1023 * y, 512 + 1023 * u, 512 + 1023 * v], -1)
    return np.stack([64 + 876 * y, 512 + 896 * u, 512 + 896 * v], -1)


def _mastering_display(data: bytes) -> str | None:
    """Return FFmpeg's AVMasteringDisplayMetadata in the notation of x265."""
    if len(data) < 88:
        return None
    numbers = struct.unpack_from("=22i", data)
    if not (numbers[20] and numbers[21]):
        return None
    ratios = [a / (b or 1) for a, b in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
    red, green, blue, white = (
        f"({round(ratios[i] * 50_000)},{round(ratios[i + 1] * 50_000)})" for i in (0, 2, 4, 6)
    )
    least, most = (round(ratios[i] * 10_000) for i in (8, 9))
    return f"G{green}B{blue}R{red}WP{white}L({most},{least})"


def _max_light(data: bytes) -> tuple[int, int] | None:
    if len(data) < 8:
        return None
    pixel, mean = struct.unpack_from("=2I", data)
    return pixel, mean


class _ColourTable:
    """A function of three channels, given by its values on a grid; safe for concurrent callers.

    Args:
        values: results for the grid, float [n, n, n, 3] in [0, 1]. The first axis is the third
            channel, the third axis the first channel.
    """

    MAX_PIXELS = _TABLE_WIDTH * _TABLE_HEIGHT
    """Maximum number of colours in a call."""

    def __init__(self, values: npt.NDArray[np.floating]) -> None:
        self._lock = Lock()
        self._number = 0
        self._graph = Graph()
        # More threads are slower, as decoding uses all cores.
        self._graph.threads = 1
        with tempfile.TemporaryDirectory(prefix="lut") as folder:
            path = Path(folder, "colours.cube")
            path.write_text(_cube(values), encoding="ascii")
            escaped = str(path).replace("\\", "/").replace(":", r"\:").replace("'", r"\'")
            self._graph.link_nodes(
                self._graph.add_buffer(
                    width=_TABLE_WIDTH,
                    height=_TABLE_HEIGHT,
                    format=av.VideoFormat("gbrp16le"),
                    time_base=_TIME_BASE,
                ),
                self._graph.add("lut3d", f"file={escaped}:interp=tetrahedral"),
                self._graph.add("buffersink"),
            ).configure()

    def __call__(
        self, first: PlaneArray, second: PlaneArray, third: PlaneArray
    ) -> tuple[_UInt16Array, _UInt16Array, _UInt16Array]:
        """Return the three results for at most `MAX_PIXELS` colours.

        Channels and results are uint16 of one shape and have the range 0 to 65,535.
        """
        frame = av.VideoFrame(_TABLE_WIDTH, _TABLE_HEIGHT, "gbrp16le")
        for index, channel in ((2, first), (0, second), (1, third)):
            _plane_values(frame, index)[: channel.size] = channel.ravel()
        with self._lock:
            frame.pts, frame.time_base = self._number, _TIME_BASE
            self._number += 1
            self._graph.vpush(frame)
            mapped = self._graph.vpull()
        results = (_plane_values(mapped, index)[: first.size] for index in (2, 0, 1))
        a, b, c = (result.reshape(first.shape) for result in results)
        return a, b, c


def _plane_values(frame: av.VideoFrame, index: int) -> _UInt16Array:
    """Return the values of a plane, which has no padding, as a view."""
    return np.frombuffer(memoryview(frame.planes[index]), np.uint16)[: _ColourTable.MAX_PIXELS]


def _cube(values: npt.NDArray[np.floating]) -> str:
    """Return a table as the text of a .cube file, the first channel fastest."""
    lines = (f"{a:.6f} {b:.6f} {c:.6f}" for a, b, c in values.reshape(-1, 3).tolist())
    return "\n".join([f"LUT_3D_SIZE {len(values)}", *lines, ""])
