"""Discovery of video files, and resampling of video to a constant frame rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from talkinghead.types import VideoFrame

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".flv"),
        *(".wmv", ".3gp", ".ogv", ".mts"),
    )
)


def list_video_files(folder: Path) -> list[Path]:
    """Return the video files in a folder and its subfolders, sorted by path."""
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()
    )


def grid_frames(frames: Iterable[VideoFrame], fps: Fraction) -> Iterator[VideoFrame]:
    """Yield, for each frame of a constant-rate grid, the image that is displayed at its middle.

    A video of the same rate is unchanged, however its timestamps are rounded.

    Args:
        frames: frames in order of time, at any rate, also a variable one.
        fps: rate of the grid.

    Yields:
        Frame `k` at time `k / fps`. The last image is displayed as long as the one before it.
    """
    number, previous, length = 0, None, 1 / fps
    for frame in frames:
        if previous is not None:
            length = frame.time_s - previous.time_s
            while (number + Fraction(1, 2)) / fps < frame.time_s:
                yield VideoFrame(previous.image, number / fps)
                number += 1
        previous = frame
    while previous is not None and (number + Fraction(1, 2)) / fps < previous.time_s + length:
        yield VideoFrame(previous.image, number / fps)
        number += 1
