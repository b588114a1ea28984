"""Deinterlacing of decoded video frames, also of those that are not marked as interlaced."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange

from talkinghead.errors import MediaError
from talkinghead.media.decoding.planes import plane_array
from talkinghead.types import FloatArray

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

log = logging.getLogger(__name__)

# BWDIF with one output frame per input frame. If the frames are marked, those without the mark of
# interlaced frames are unchanged; the marks also give the order of the fields.
_MARKED, _ALL = "mode=send_frame:parity=auto:deint=interlaced", "mode=send_frame:deint=all:parity="
# Number of frames that wait for the end of the search for combs.
_MAX_WAITING = 25
# Number of frames with motion after which a video is judged, minimum number of them at its end, and
# number of frames after which the search ends.
_JUDGED, _LEAST_JUDGED, _MAX_FRAMES = 12, 4, 250
# Minimum change of a moving pixel, in levels and in multiples of the median change (the noise), and
# minimum fraction of moving pixels. Minimum step between two rows, in the same two units.
_MOTION, _MOTION_NOISE, _MIN_MOVING, _STEP, _STEP_NOISE = 12, 8, 0.001, 4, 3
# Minimum ratio of the number of combed pixels to that of moving pixels that are darker or brighter
# than both of the next rows of their own field, and minimum number of combed pixels. Measured
# ratios: up to 0.57 in 110 progressive clips, also with noise; from 0.85 in interlaced ones.
_COMB_RATIO, _MIN_COMBED = 0.75, 100
# Interlaced formats have at most 1080 lines (1088 as coded), so taller videos are not examined. Of
# wide frames, columns at equal distances are examined, at least this number of them.
_MAX_LINES, _NUM_COLUMNS = 1200, 240


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
    detector: _CombDetector | None = _CombDetector()
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


def _found(detector: _CombDetector) -> str | None:
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


class _CombDetector:
    """A detector of combs: alternating rows of two fields that show a motion at different times.

    A pixel is combed if it is darker or brighter than both the row above and the row below.
    """

    def __init__(self) -> None:
        self._num_moving = self._num_frames = self._num_combed = self._num_usual = 0
        self._previous: FloatArray | None = None
        # Difference of the bottom field to the next top field, and of the top to the next bottom.
        self._differences = np.zeros(2)

    @property
    def verdict(self) -> bool | None:
        """Whether the video is interlaced; None if further frames are needed."""
        if self._num_moving < _JUDGED and self._num_frames < _MAX_FRAMES:
            return None
        return self.is_interlaced

    @property
    def is_interlaced(self) -> bool:
        """Whether the frames so far are interlaced."""
        is_judged = self._num_moving >= _LEAST_JUDGED and self._num_combed >= _MIN_COMBED
        return is_judged and self._num_combed > _COMB_RATIO * self._num_usual

    @property
    def parity(self) -> str:
        """Order of the fields as FFmpeg names it: "tff" (top field first) or "bff"."""
        return "tff" if self._differences[0] <= self._differences[1] else "bff"

    def add(self, frame: AVFrame) -> None:
        """Examine the next frame."""
        if frame.height > _MAX_LINES or frame.height < 8:
            self._num_frames = _MAX_FRAMES
            return
        self._num_frames += 1
        grey = _grey(frame)
        previous, self._previous = self._previous, grey
        if previous is None or previous.shape != grey.shape:
            return
        change = np.abs(grey - previous)
        noise = float(np.median(change))
        moving = change > max(_MOTION, _MOTION_NOISE * noise)
        if moving.mean() < _MIN_MOVING:
            return
        self._num_moving += 1
        inside, row, step = moving[2:-2], grey[2:-2], max(_STEP, _STEP_NOISE * noise)
        combed = (grey[1:-3] - row) * (grey[3:-1] - row) > step**2
        usual = (grey[:-4] - row) * (grey[4:] - row) > step**2
        self._num_combed += int(np.count_nonzero(combed & inside))
        self._num_usual += int(np.count_nonzero(usual & inside))
        rows = (len(grey) - 4) // 2
        for index in range(2):
            # Rows of one field, and the rows of the other field above and below one frame earlier.
            now = grey[2 + index :: 2][:rows]
            other = previous[1 + index :: 2]
            between = (other[:rows] + other[1 : rows + 1]) / 2
            self._differences[index] += float(np.abs(now - between).mean())


def _grey(frame: AVFrame) -> FloatArray:
    """Return the brightness of some columns, without its offset, float32 [H, columns]."""
    kind, scale = frame.format, np.float32(1)
    if kind.is_planar and not kind.is_rgb and kind.components[0].bits == 8:
        grey = plane_array(frame, 0)
        scale = np.float32(1 if frame.color_range == ColorRange.JPEG else 255 / 219)
    else:
        grey = frame.reformat(format="gray").to_ndarray()
    step = max(1, grey.shape[1] // _NUM_COLUMNS)
    return np.asarray(grey[:, ::step] * scale, dtype=np.float32)
