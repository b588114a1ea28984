"""Deinterlacing of decoded video frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import av
from av.filter import Graph

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

# BWDIF with one output frame per input frame; frames without the interlaced flag are unchanged.
_OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"


def deinterlace(frames: Iterable[AVFrame]) -> Iterator[AVFrame]:
    """Yield the frames of a stream, deinterlaced from the first interlaced frame on.

    The number and the times of the frames do not change. A stream without interlaced frames is
    returned as it is; else the delay is one frame.
    """
    deinterlacer: _Deinterlacer | None = None
    for frame in frames:
        if deinterlacer is not None and not deinterlacer.fits(frame):
            yield from deinterlacer.flush()
            deinterlacer = None
        if deinterlacer is None and frame.interlaced_frame:
            deinterlacer = _Deinterlacer(frame)
        if deinterlacer is None:
            yield frame
        else:
            yield from deinterlacer.push(frame)
    if deinterlacer is not None:
        yield from deinterlacer.flush()


class _Deinterlacer:
    """FFmpeg's filter bwdif for frames of one size and format.

    In the filter, consecutive numbers replace the times of the frames, which may be missing or
    repeated; the times are restored afterwards.
    """

    def __init__(self, frame: AVFrame) -> None:
        self._format = frame.width, frame.height, frame.format.name
        self._times: list[tuple] = []
        self._number = 0
        self._graph = Graph()
        self._graph.link_nodes(
            self._graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            ),
            self._graph.add("bwdif", _OPTIONS),
            self._graph.add("buffersink"),
        ).configure()

    def fits(self, frame: AVFrame) -> bool:
        """Return whether a frame has the size and the format of the first frame."""
        return (frame.width, frame.height, frame.format.name) == self._format

    def push(self, frame: AVFrame) -> Iterator[AVFrame]:
        """Add a frame, and yield the frames that are ready."""
        self._times.append((frame.pts, frame.time_base))
        frame.pts = self._number
        self._number += 1
        self._graph.vpush(frame)
        yield from self._ready()

    def flush(self) -> Iterator[AVFrame]:
        """Yield the remaining frames."""
        self._graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[AVFrame]:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            frame.pts, frame.time_base = self._times.pop(0)
            yield frame
