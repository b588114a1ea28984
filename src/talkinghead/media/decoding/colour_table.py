"""Functions of colours as look-up tables, which libavfilter interpolates."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from threading import Lock

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph

from talkinghead.media.decoding.planes import PlaneArray

UInt16Array = npt.NDArray[np.uint16]

_WIDTH, _HEIGHT = 1024, 64
_TIME_BASE = Fraction(1, 25)


class ColourTable:
    """A function of three channels, given by its values on a grid; safe for concurrent callers.

    Args:
        values: results for the grid, float [n, n, n, 3] in [0, 1]. The first axis is the third
            channel, the third axis the first channel.
    """

    MAX_PIXELS = _WIDTH * _HEIGHT
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
                    width=_WIDTH,
                    height=_HEIGHT,
                    format=av.VideoFormat("gbrp16le"),
                    time_base=_TIME_BASE,
                ),
                self._graph.add("lut3d", f"file={escaped}:interp=tetrahedral"),
                self._graph.add("buffersink"),
            ).configure()

    def __call__(
        self, first: PlaneArray, second: PlaneArray, third: PlaneArray
    ) -> tuple[UInt16Array, UInt16Array, UInt16Array]:
        """Return the three results for at most `MAX_PIXELS` colours.

        Channels and results are uint16 of one shape and have the range 0 to 65,535.
        """
        frame = av.VideoFrame(_WIDTH, _HEIGHT, "gbrp16le")
        for index, channel in ((2, first), (0, second), (1, third)):
            _values(frame, index)[: channel.size] = channel.ravel()
        with self._lock:
            frame.pts, frame.time_base = self._number, _TIME_BASE
            self._number += 1
            self._graph.vpush(frame)
            mapped = self._graph.vpull()
        results = (_values(mapped, index)[: first.size] for index in (2, 0, 1))
        a, b, c = (result.reshape(first.shape) for result in results)
        return a, b, c


def _values(frame: av.VideoFrame, index: int) -> UInt16Array:
    """Return the values of a plane, which has no padding, as a view."""
    return np.frombuffer(memoryview(frame.planes[index]), np.uint16)[: ColourTable.MAX_PIXELS]


def _cube(values: npt.NDArray[np.floating]) -> str:
    """Return a table as the text of a .cube file, the first channel fastest."""
    lines = (f"{a:.6f} {b:.6f} {c:.6f}" for a, b, c in values.reshape(-1, 3).tolist())
    return "\n".join([f"LUT_3D_SIZE {len(values)}", *lines, ""])
