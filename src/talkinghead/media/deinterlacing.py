"""Deinterlacing of decoded video frames."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import av
from av.filter import Graph

from talkinghead.errors import MediaError
from talkinghead.media.decoding.comb_detection import CombDetector

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

log = logging.getLogger(__name__)

# BWDIF with one output frame per input frame. If the frames are marked, those without the mark of
# interlaced frames are unchanged; the marks also give the order of the fields.
_MARKED, _ALL = "mode=send_frame:parity=auto:deint=interlaced", "mode=send_frame:deint=all:parity="
# Number of frames that wait for the end of the search for combs.
_MAX_WAITING = 25


def deinterlace(frames: Iterable[AVFrame]) -> Iterator[tuple[AVFrame, bool]]:
    """Yield the frames of a stream, deinterlaced from the first interlaced frame on.

    Frames are interlaced if they are marked as such, or if combs are found in the first frames with
    motion. The number and the times of the frames do not change. A stream without interlaced frames
    is returned as it is; else the delay is one frame.

    Yields:
        Each frame, and whether it was made from several frames.
    """
    deinterlacer: _Deinterlacer | None = None
    for frame, parity in _with_parity(frames):
        if deinterlacer is not None and not deinterlacer.fits(frame):
            yield from _mark(deinterlacer.flush())
            deinterlacer = None
        if deinterlacer is None and (parity is not None or frame.interlaced_frame):
            deinterlacer = _Deinterlacer(frame, _MARKED if parity is None else _ALL + parity)
        if deinterlacer is None:
            yield frame, False
        else:
            yield from _mark(deinterlacer.push(frame))
    if deinterlacer is not None:
        yield from _mark(deinterlacer.flush())


def _mark(frames: Iterable[AVFrame]) -> Iterator[tuple[AVFrame, bool]]:
    return ((frame, True) for frame in frames)


def _with_parity(frames: Iterable[AVFrame]) -> Iterator[tuple[AVFrame, str | None]]:
    """Yield each frame, and the order of its fields if it is interlaced without a mark.

    Before the first motion nothing is combed, so only the last frames wait for the result.
    """
    detector: CombDetector | None = CombDetector()
    waiting: deque[AVFrame] = deque()
    parity: str | None = None
    failure: MediaError | None = None
    try:
        for frame in frames:
            waiting.append(frame)
            if detector is not None and frame.interlaced_frame:
                detector = None
            if detector is not None:
                detector.add(frame)
                if detector.verdict is not None:
                    parity = _found(detector)
                    detector = None
            while waiting and (detector is None or len(waiting) > _MAX_WAITING):
                yield waiting.popleft(), parity
    except MediaError as error:
        failure = error  # The intact frames of a damaged file come first.
    if detector is not None:
        parity = _found(detector)
    for frame in waiting:
        yield frame, parity
    if failure is not None:
        raise failure


def _found(detector: CombDetector) -> str | None:
    if not detector.is_interlaced:
        return None
    log.debug("the video is interlaced, although it is not marked as such; it is deinterlaced")
    return detector.parity


class _Deinterlacer:
    """FFmpeg's filter bwdif for frames of one size and format.

    In the filter, consecutive numbers replace the times of the frames, which may be missing or
    repeated; the times are restored afterwards.
    """

    def __init__(self, frame: AVFrame, options: str) -> None:
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
            self._graph.add("bwdif", options),
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
