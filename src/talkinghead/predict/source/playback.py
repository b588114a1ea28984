"""Decode a video's frames, and extend the video beyond its end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path

from talkinghead.errors import MediaError
from talkinghead.media.reader import read_video
from talkinghead.media.timing import round_half_up
from talkinghead.predict.source.source_frame import SourceFrame

# Maximum rounding error of frame times: the coarsest container format stores milliseconds.
_ROUNDING_S = Fraction(1, 1000)
_BLOCK_BYTES = 256 * 2**20


def play(path: Path, fps: Fraction, extend: str = "pingpong") -> Generator[SourceFrame]:
    """Yield a video's frames, then extend the video endlessly; `time_s` always increases.

    `fps` is the nominal frame rate, and `SourceOptions` documents `extend`.

    Raises:
        MediaError: the video has no frames, or cannot be read (possibly only during iteration).
    """
    time_s = Fraction(0)
    with closing(_repeat_video(path, fps, extend)) as frames:
        for frame in frames:
            yield replace(frame, time_s=time_s)
            time_s += frame.duration_s


def _repeat_video(path: Path, fps: Fraction, extend: str) -> Generator[SourceFrame]:
    """Yield the frames of `play` with their times in the file.

    If `extend` is "pingpong", the first and the last frame are not repeated.
    """
    num_frames = 0
    last: SourceFrame | None = None
    for last in decode_frames(path, fps):
        yield last
        num_frames += 1
    if last is None:
        raise MediaError(
            f"{path}: no frame could be decoded; expected at least one: use another video"
        )
    if extend == "hold" or num_frames == 1:
        yield from repeat(replace(last, duration_s=1 / fps, is_extension=True))
    block = max(1, _BLOCK_BYTES // last.image.nbytes)
    del last
    while True:
        if extend == "pingpong":
            yield from _backwards(path, fps, num_frames - 1, block)
        with closing(decode_frames(path, fps)) as frames:
            for index, frame in enumerate(frames):
                is_cut = extend == "loop" and index == 0
                if extend == "loop" or index > 0:
                    yield replace(frame, is_extension=True, starts_shot=is_cut)


def _backwards(path: Path, fps: Fraction, stop: int, block: int) -> Iterator[SourceFrame]:
    """Yield the frames of a video in reverse order, from `stop - 1` down to 0.

    Decoders only run forwards, so the video is decoded once per block; one block is in memory.
    """
    while stop > 0:
        start = max(0, stop - block)
        with closing(decode_frames(path, fps)) as frames:
            for frame in reversed(list(islice(frames, start, stop))):
                yield replace(frame, is_extension=True)
        stop = start


def decode_frames(path: Path, fps: Fraction) -> Generator[SourceFrame]:
    """Yield the frames of a video once.

    If the frame rate is constant, the container's rounding of times is removed.
    """
    previous: SourceFrame | None = None
    for frame in read_video(path):
        time_s = _on_grid(frame.time_s, fps)
        if previous is not None:
            yield replace(previous, duration_s=time_s - previous.time_s)
        previous = SourceFrame(frame.image, time_s, 1 / fps, file_time_s=time_s)
    if previous is not None:
        yield previous


def _on_grid(time_s: Fraction, fps: Fraction) -> Fraction:
    nearest = round_half_up(time_s * fps) / fps
    return nearest if abs(nearest - time_s) <= min(_ROUNDING_S, 1 / (10 * fps)) else time_s
