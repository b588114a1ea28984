"""Decode a video's frames, repeat frames that are shown for long, and extend the video."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path

from talkinghead.errors import MediaError
from talkinghead.media.decoding.reverse_reader import FrameKey, read_backwards
from talkinghead.media.reader import read_frames
from talkinghead.media.timing import round_half_up
from talkinghead.predict.source.source_frame import SourceFrame

log = logging.getLogger(__name__)

MAX_FPS = 120
"""Maximum nominal frame rate of a played video, as that of fast displays."""
# Maximum rounding error of frame times: the coarsest container format stores milliseconds.
_ROUNDING_S = Fraction(1, 1000)
# Duration of the frames that the stages after this one may read in advance.
_READ_AHEAD_S = 2
_BLOCK_BYTES = 256 * 2**20


def play(
    path: Path,
    fps: Fraction,
    extend: str = "pingpong",
    min_fps: float = 0.0,
    *,
    keep_hdr: bool = True,
    speech_s: Fraction | None = None,
) -> Generator[SourceFrame]:
    """Yield a video's frames, then extend the video endlessly; `time_s` always increases.

    `fps` is the nominal frame rate. `SourceOptions` documents `extend` and `min_fps`, `VideoImage`
    documents `keep_hdr`. Of a video above `MAX_FPS`, such as slow motion, frames are left out.
    `speech_s` is the estimated duration of the speech, if known: after a video that is as long, the
    last frame is repeated for some time before the video is extended. Frames after the speech are
    only read in advance, and not worth any decoding.

    Raises:
        MediaError: the video has no frames, or cannot be read (possibly only during iteration).
    """
    time_s = Fraction(0)
    divide = _FrameDivider(min_fps)
    with closing(_repeat_video(path, fps, extend, keep_hdr, speech_s)) as frames:
        for frame in frames if fps <= MAX_FPS else _without_short_frames(frames):
            for part in divide(frame):
                yield replace(part, time_s=time_s)
                time_s += part.duration_s


def played_rate(fps: Fraction, min_fps: float, name: str | None = None) -> Fraction:
    """Return the nominal frame rate of `play`: a multiple or a fraction of the video's own rate.

    With the name of the video, a fraction is logged.
    """
    if fps > MAX_FPS:
        rate = fps / math.ceil(fps / MAX_FPS)
        if name is not None:
            log.info("%s has %.6g frames/s, of which %.6g are used", name, fps, rate)
        return rate
    return fps * _min_parts(1 / fps, Fraction(min_fps))


def _without_short_frames(frames: Iterator[SourceFrame]) -> Iterator[SourceFrame]:
    """Yield frames of at least 1 / `MAX_FPS`; the following ones are left out until then."""
    shown: SourceFrame | None = None
    for frame in frames:
        if shown is None or frame.starts_shot or shown.duration_s * MAX_FPS >= 1:
            if shown is not None:
                yield shown
            shown = frame
        else:
            shown = replace(shown, duration_s=shown.duration_s + frame.duration_s)
    if shown is not None:
        yield shown


def _min_parts(duration_s: Fraction, min_fps: Fraction) -> int:
    """Return the minimum number of parts of a frame, so that none is longer than 1 / `min_fps`."""
    return max(1, math.ceil((duration_s - _ROUNDING_S) * min_fps))


class _FrameDivider:
    """A function that repeats frames so that none is longer than 1 / `min_fps`; 0 is no limit.

    The parts of a long frame are as long as the frames before, as far as possible: a video at 25
    frames/s that holds an image for a second gets 25 frames.
    """

    def __init__(self, min_fps: float) -> None:
        self._min_fps = Fraction(min_fps)
        self._longest_s = 1 / self._min_fps if min_fps > 0 else None
        self._usual_s = self._longest_s

    def __call__(self, frame: SourceFrame) -> Iterator[SourceFrame]:
        duration_s = frame.duration_s
        if self._longest_s is None or self._usual_s is None:
            yield frame
            return
        least = _min_parts(duration_s, self._min_fps)
        if least == 1:
            # A single short frame, as in damaged files, must not give thousands of parts.
            self._usual_s = min(max(duration_s, self._longest_s / 3), self._longest_s)
            yield frame
            return
        num_parts = max(least, round_half_up(duration_s / self._usual_s))
        part_s = duration_s / num_parts
        for number in range(num_parts):
            yield replace(
                frame,
                duration_s=part_s,
                file_time_s=frame.file_time_s + number * part_s,
                starts_shot=frame.starts_shot and number == 0,
            )


def _repeat_video(
    path: Path, fps: Fraction, extend: str, keep_hdr: bool, speech_s: Fraction | None = None
) -> Generator[SourceFrame]:
    """Yield the frames of `play` with their times in the file.

    If `extend` is "pingpong", the first and the last frame are not repeated.
    """
    # Backward playback needs the time and the key of each frame, about 230 bytes.
    times_s: list[Fraction] = []
    keys: list[FrameKey] | None = [] if extend == "pingpong" else None
    num_frames = 0
    last: SourceFrame | None = None
    for last in decode_frames(path, fps, keys, keep_hdr=keep_hdr):
        num_frames += 1
        if keys is not None:
            times_s.append(last.time_s)
        yield last
    if last is None:
        raise MediaError(
            f"{path}: no frame could be decoded; expected at least one: use another video"
        )
    held = replace(last, duration_s=1 / fps, is_extension=True)
    if extend == "hold" or num_frames == 1:
        yield from repeat(held)
    if speech_s is not None and last.time_s + last.duration_s >= speech_s:
        yield from repeat(held, math.ceil(_READ_AHEAD_S * fps))
    del held
    shape = last.image.shape
    del last
    while True:
        if keys is not None:
            yield from _backwards(path, fps, times_s, keys, shape, keep_hdr)
        with closing(decode_frames(path, fps, keep_hdr=keep_hdr)) as frames:
            for index, frame in enumerate(frames):
                is_cut = extend == "loop" and index == 0
                if extend == "loop" or index > 0:
                    yield replace(frame, is_extension=True, starts_shot=is_cut)


def _backwards(
    path: Path,
    fps: Fraction,
    times_s: Sequence[Fraction],
    keys: Sequence[FrameKey],
    shape: tuple[int, ...],
    keep_hdr: bool,
) -> Iterator[SourceFrame]:
    """Yield the frames of a video in reverse order, from the last but one to the first.

    Where the file permits no exact seeking, the video is decoded from its start once per block of
    frames.
    """
    stop = len(times_s) - 1
    with closing(read_backwards(path, keys, stop, shape, keep_hdr=keep_hdr)) as images:
        for image in images:
            stop -= 1
            time_s = times_s[stop]
            duration_s = times_s[stop + 1] - time_s
            yield SourceFrame(image, time_s, duration_s, file_time_s=time_s, is_extension=True)
    block = max(1, _BLOCK_BYTES // math.prod(shape))
    while stop > 0:
        start = max(0, stop - block)
        with closing(decode_frames(path, fps, keep_hdr=keep_hdr)) as frames:
            for frame in reversed(list(islice(frames, start, stop))):
                yield replace(frame, is_extension=True)
        stop = start


def decode_frames(
    path: Path, fps: Fraction, keys: list[FrameKey] | None = None, *, keep_hdr: bool = True
) -> Generator[SourceFrame]:
    """Yield the frames of a video once, and append their positions in the file to `keys`.

    If the frame rate is constant, the container's rounding of times is removed. Times always
    increase. `keep_hdr` is that of `VideoImage`.
    """
    previous: SourceFrame | None = None
    stored_s = Fraction(0)  # Time of the previous frame in the file.
    for frame in read_frames(path, keep_hdr=keep_hdr):
        time_s = _on_grid(frame.time_s, fps)
        if keys is not None:
            keys.append(FrameKey(frame.pts, frame.is_key))
        if previous is not None:
            if time_s <= previous.time_s:
                # Both frames are near the same grid time: keep their distance.
                time_s = previous.time_s + frame.time_s - stored_s
            yield replace(previous, duration_s=time_s - previous.time_s)
        previous = SourceFrame(frame.image, time_s, 1 / fps, file_time_s=time_s)
        stored_s = frame.time_s
    if previous is not None:
        yield previous


def _on_grid(time_s: Fraction, fps: Fraction) -> Fraction:
    nearest = round_half_up(time_s * fps) / fps
    return nearest if abs(nearest - time_s) <= min(_ROUNDING_S, 1 / (10 * fps)) else time_s
