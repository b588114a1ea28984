"""Conversion of high dynamic range (HDR10 and HLG) to standard dynamic range in BT.709."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

_HDR_TRANSFERS = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
# Entries of the look-up table in each dimension; values between them are interpolated.
_LUT_SIZE = 33
_TIME_BASE = Fraction(1, 25)


def is_hdr(frame: AVFrame) -> bool:
    """Return whether a frame has the transfer function of HDR10 (PQ) or HLG."""
    return int(frame.color_trc) in _HDR_TRANSFERS


class ToneMapper:
    """A converter of HDR frames of one size to BT.709 with standard dynamic range.

    Colours are mapped by libswscale: reference white (203 cd/m2) becomes white, and brighter
    colours are compressed. Its result for all colours is kept in a table, as it is too slow for
    every frame.

    Args:
        width: width of the frames in pixels.
        height: height of the frames in pixels.
        transfer: transfer function of the frames, an FFmpeg constant.
        primaries: primaries of the frames, an FFmpeg constant.
    """

    pix_fmt = "gbrp16le"
    """Pixel format of the frames, for which the table is fast."""

    def __init__(self, width: int, height: int, transfer: int, primaries: int) -> None:
        self._number = 0
        self._graph = Graph()
        # More threads are slower, as decoding uses all cores.
        self._graph.threads = 1
        with tempfile.TemporaryDirectory(prefix="lut") as folder:
            path = Path(folder, "hdr.cube")
            path.write_text(_cube(transfer, primaries), encoding="ascii")
            escaped = str(path).replace("\\", "/").replace(":", r"\:").replace("'", r"\'")
            self._graph.link_nodes(
                self._graph.add_buffer(
                    width=width,
                    height=height,
                    format=av.VideoFormat(self.pix_fmt),
                    time_base=_TIME_BASE,
                ),
                self._graph.add("lut3d", f"file={escaped}:interp=tetrahedral"),
                self._graph.add("buffersink"),
            ).configure()

    def __call__(self, frame: AVFrame) -> AVFrame:
        """Return the mapped frame; both have the format `pix_fmt`."""
        frame.pts, frame.time_base = self._number, _TIME_BASE
        self._number += 1
        self._graph.vpush(frame)
        return self._graph.vpull()


@lru_cache(maxsize=4)
def _cube(transfer: int, primaries: int) -> str:
    """Return the table of all colours as the text of a .cube file, red fastest."""
    table = _mapped_colours(transfer, primaries).reshape(-1, 3) / 65_535
    lines = (f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in table.tolist())
    return "\n".join([f"LUT_3D_SIZE {_LUT_SIZE}", *lines, ""])


def _mapped_colours(transfer: int, primaries: int) -> npt.NDArray[np.uint16]:
    """Return the mapped colours, uint16 [n * n, n, 3], of a grid with n values per channel."""
    steps = np.rint(np.linspace(0, 65_535, _LUT_SIZE)).astype(np.uint16)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    grid = np.stack([red, green, blue], -1).reshape(_LUT_SIZE**2, _LUT_SIZE, 3)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grid), format="rgb48le")
    frame.color_trc, frame.color_primaries = transfer, primaries
    mapped = VideoReformatter().reformat(
        frame,
        format="rgb48le",
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
        threads=1,
    )
    return np.asarray(mapped.to_ndarray(), dtype=np.uint16)
