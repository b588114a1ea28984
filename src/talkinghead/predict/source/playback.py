"""A video's pictures, and how they go on where the speech is longer."""

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

# Containers round times to their own unit, a millisecond in the coarsest.
_ROUNDING_S = Fraction(1, 1000)
_BLOCK_BYTES = 256 * 2**20


def play(path: Path, fps: Fraction, extend: str = "pingpong") -> Generator[SourceFrame]:
    """A video's frames, and more without end; times run on.

    Args:
        path: the video.
        fps: its nominal rate.
        extend: see `SourceOptions`.

    Raises:
        MediaError: it holds no picture, or cannot be read (some faults show only on the way).
    """
    time_s = Fraction(0)
    with closing(_laps(path, fps, extend)) as frames:
        for frame in frames:
            yield replace(frame, time_s=time_s)
            time_s += frame.duration_s


def _laps(path: Path, fps: Fraction, extend: str) -> Generator[SourceFrame]:
    """To and fro, neither end comes twice."""
    num_frames = 0
    last: SourceFrame | None = None
    for last in stored_frames(path, fps):
        yield last
        num_frames += 1
    if last is None:
        raise MediaError(
            f"{path}: no picture could be decoded; expected at least one: use another video"
        )
    if extend == "hold" or num_frames == 1:
        yield from repeat(replace(last, duration_s=1 / fps, is_extension=True))
    block = max(1, _BLOCK_BYTES // last.image.nbytes)
    del last
    while True:
        if extend == "pingpong":
            yield from _backwards(path, fps, num_frames - 1, block)
        with closing(stored_frames(path, fps)) as frames:
            for number, frame in enumerate(frames):
                jumps = extend == "loop" and number == 0
                if extend == "loop" or number > 0:
                    yield replace(frame, is_extension=True, opens_shot=jumps)


def _backwards(path: Path, fps: Fraction, stop: int, block: int) -> Iterator[SourceFrame]:
    """Frames stop - 1 down to 0. Decoders only run forwards: memory holds a block at a time."""
    while stop > 0:
        start = max(0, stop - block)
        with closing(stored_frames(path, fps)) as frames:
            for frame in reversed(list(islice(frames, start, stop))):
                yield replace(frame, is_extension=True)
        stop = start


def stored_frames(path: Path, fps: Fraction) -> Generator[SourceFrame]:
    """Frames with their times, freed from the container's rounding where the rate is constant."""
    previous: SourceFrame | None = None
    for frame in read_video(path):
        time_s = _on_grid(frame.time_s, fps)
        if previous is not None:
            yield replace(previous, duration_s=time_s - previous.time_s)
        previous = SourceFrame(frame.image, time_s, 1 / fps, stored_s=time_s)
    if previous is not None:
        yield previous


def _on_grid(time_s: Fraction, fps: Fraction) -> Fraction:
    nearest = round_half_up(time_s * fps) / fps
    return nearest if abs(nearest - time_s) <= min(_ROUNDING_S, 1 / (10 * fps)) else time_s
