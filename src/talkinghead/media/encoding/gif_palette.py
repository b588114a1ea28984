"""Reduction of the colours of a video to one palette, for GIF files."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.filter import Graph

if TYPE_CHECKING:
    from av.filter.context import FilterContext
    from av.video.frame import VideoFrame as AVFrame

# One palette, that of the first frames, because changing palettes make a still background flicker.
_NUM_PALETTE_FRAMES = 50
_DITHER = "dither=bayer:bayer_scale=4:diff_mode=rectangle"


class PaletteMapper:
    """A converter of RGB frames to frames with a palette of 256 colours.

    The palette is computed from the first two seconds, which are kept in memory until then.

    Args:
        width: width of the frames in pixels.
        height: height of the frames in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._waiting: list[AVFrame] = []
        self._graph: Graph | None = None

    def push(self, frame: AVFrame) -> Iterator[AVFrame]:
        """Add a frame in the format rgb24 with its time, and yield the frames that are ready."""
        if self._graph is not None:
            yield from self._map(frame)
            return
        self._waiting.append(frame)
        if len(self._waiting) == _NUM_PALETTE_FRAMES:
            yield from self._start()

    def flush(self) -> Iterator[AVFrame]:
        """Yield the remaining frames at the end."""
        if self._graph is None and self._waiting:
            yield from self._start()

    def _start(self) -> Iterator[AVFrame]:
        palette = self._palette()
        time_base = self._waiting[0].time_base
        graph = Graph()
        frames = self._add_input(graph, time_base)
        colours = graph.add_buffer(
            width=16, height=16, format=av.VideoFormat("bgra"), time_base=time_base
        )
        use, sink = graph.add("paletteuse", _DITHER), graph.add("buffersink")
        frames.link_to(use, 0, 0)
        colours.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        palette.pts, palette.time_base = self._waiting[0].pts, time_base
        colours.push(palette)
        colours.push(None)
        self._graph, self._input, self._sink = graph, frames, sink
        for frame in self._waiting:
            yield from self._map(frame)
        self._waiting = []

    def _add_input(self, graph: Graph, time_base: Fraction | None) -> FilterContext:
        return graph.add_buffer(
            width=self._width, height=self._height, format=_RGB, time_base=time_base
        )

    def _map(self, frame: AVFrame) -> Iterator[AVFrame]:
        self._input.push(frame)
        yield from _pull(self._sink)

    def _palette(self) -> AVFrame:
        """Return the palette of the waiting frames, in the format bgra, 16 x 16."""
        graph = Graph()
        time_base = Fraction(1, 25)
        source = self._add_input(graph, time_base)
        generate, sink = graph.add("palettegen", "reserve_transparent=0"), graph.add("buffersink")
        source.link_to(generate)
        generate.link_to(sink)
        graph.configure()
        for number, frame in enumerate(self._waiting):
            times = frame.pts, frame.time_base
            frame.pts, frame.time_base = number, time_base
            source.push(frame)
            frame.pts, frame.time_base = times
        source.push(None)
        return next(_pull(sink))


_RGB = av.VideoFormat("rgb24")


def _pull(sink: FilterContext) -> Iterator[AVFrame]:
    while True:
        try:
            frame = sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield frame  # type: ignore[misc]
