"""Reading of animated WebP files with Pillow, as FFmpeg does not decode them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from talkinghead.errors import MediaError
from talkinghead.media.container import MAX_PIXELS
from talkinghead.media.image import over_white
from talkinghead.types import VideoFrame

# Position and bit of the flag for animation in the extended header.
_FLAGS_AT, _ANIMATION_FLAG = 20, 0x02
# Shorter durations are displayed as 100 ms by browsers.
_MIN_DURATION_MS, _DEFAULT_DURATION_MS = 11, 100


@dataclass(frozen=True)
class AnimationInfo:
    """Properties of an animation: size in pixels, number of frames and total duration."""

    width: int
    height: int
    num_frames: int
    duration_s: Fraction


def is_animated_webp(path: Path | str) -> bool:
    """Return whether a file has the header of an animated WebP; False for a pipe or a device."""
    try:
        if not Path(path).is_file():  # Opening a pipe would wait for a writer.
            return False
        with Path(path).open("rb") as file:
            header = file.read(_FLAGS_AT + 1)
    except OSError:
        return False
    is_extended = header[:4] == b"RIFF" and header[8:16] == b"WEBPVP8X"
    return is_extended and len(header) > _FLAGS_AT and bool(header[_FLAGS_AT] & _ANIMATION_FLAG)


def probe_animation(path: Path | str) -> AnimationInfo:
    """Decode an animated WebP once and return its properties.

    Raises:
        MediaError: the file is damaged or too large.
    """
    width = height = num_frames = 0
    duration_s = Fraction(0)
    for frame, frame_s in _frames(path):
        height, width, _ = frame.image.shape
        num_frames += 1
        duration_s = frame.time_s + frame_s
    return AnimationInfo(width, height, num_frames, duration_s)


def read_animation(path: Path | str) -> Iterator[VideoFrame]:
    """Decode the frames of an animated WebP one by one, composited over white.

    Raises:
        MediaError: the file is damaged or too large (earlier frames have been yielded).
    """
    return (frame for frame, _ in _frames(path))


def _frames(path: Path | str) -> Iterator[tuple[VideoFrame, Fraction]]:
    """Yield each frame with its duration in seconds."""
    try:
        with Image.open(path, formats=["WEBP"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise MediaError(
                    f"{path}: {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are "
                    "read, scale it down"
                )
            time_s = Fraction(0)
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                rgba = np.asarray(image.convert("RGBA"))
                # Pillow knows the duration of a frame once the frame is decoded.
                duration_ms = round(image.info.get("duration", 0))
                if duration_ms < _MIN_DURATION_MS:
                    duration_ms = _DEFAULT_DURATION_MS
                frame_s = Fraction(duration_ms, 1000)
                yield VideoFrame(over_white(rgba), time_s), frame_s
                time_s += frame_s
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError(
            f"{path}: an animated WebP that is damaged ({error}); give an intact file, or convert "
            "it to GIF or MP4"
        ) from error
