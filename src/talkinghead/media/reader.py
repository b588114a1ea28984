"""Reading media: what a file is, its pictures as upright RGB, its sound as mono float32.

Anything that FFmpeg's libraries decode can be read. Nothing is held but what is being decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from talkinghead.errors import MediaError
from talkinghead.media.audio_decoding import read_audio, stream_audio
from talkinghead.media.colour import BT709, ColourTags
from talkinghead.media.container import (
    MAX_PIXELS,
    container_duration_s,
    decode,
    find_video,
    is_still,
    open_input,
)
from talkinghead.media.image import RGBConverter, exif_matrix
from talkinghead.media.timing import round_half_up
from talkinghead.types import UInt8Array, VideoFrame

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = [
    "MAX_FPS",
    "MAX_PIXELS",
    "MediaInfo",
    "is_image",
    "probe",
    "read_audio",
    "read_image",
    "read_video",
    "stream_audio",
]

MAX_FPS = 1000
"""Videos that claim more frames a second are refused: a second of speech would take hours."""


@dataclass(frozen=True)
class MediaInfo:
    """What a file's header and its first picture say.

    Attributes:
        width: pixels, upright and with square pixels, as `read_video` gives them; 0 without
            pictures.
        height: likewise.
        fps: frames per second, exact (the mean where the rate varies); None for a still and for
            sound alone.
        duration_s: of the longest stream; 0 for a still, or where the file does not say.
        num_frames_estimate: pictures, by the header; 1 for a still, 0 without pictures.
        has_video: it has pictures, moving or still (cover art in a sound file does not count).
        has_audio: it has sound.
        is_image: it is a still.
        sample_rate: of the sound as stored, in Hz; None without sound.
        rotation: degrees clockwise that turn the stored pictures upright: 0, 90, 180 or 270.
        colour: how a video's pictures stand for colours; of a still, what is written for it.
    """

    width: int
    height: int
    fps: Fraction | None
    duration_s: Fraction
    num_frames_estimate: int
    has_video: bool
    has_audio: bool
    is_image: bool
    sample_rate: int | None
    rotation: int
    colour: ColourTags = BT709


def probe(path: Path | str) -> MediaInfo:
    """Look at a file, decoding one picture at most.

    Raises:
        MediaError: the file is missing, a directory, empty, damaged or no media.
    """
    with open_input(path) as container:
        stream = find_video(container, path)
        audio = container.streams.audio
        still = is_still(container, stream, path)
        fps = None if stream is None or still else _frame_rate(stream, path)
        duration_s = Fraction(0) if still else container_duration_s(container)
        width = height = rotation = num_frames = 0
        colour = BT709
        if stream is not None:
            num_frames = 1 if still else stream.frames or round_half_up(duration_s * (fps or 0))
            convert = _converter(stream, path, still=still)
            image = convert(next(decode(container, stream, path)))
            height, width, rotation = *image.shape[:2], convert.rotation
            colour = colour if still else convert.colour
        return MediaInfo(
            width=width,
            height=height,
            fps=fps,
            duration_s=duration_s,
            num_frames_estimate=num_frames,
            has_video=stream is not None,
            has_audio=bool(audio),
            is_image=still,
            sample_rate=audio[0].sample_rate if audio else None,
            rotation=rotation,
            colour=colour,
        )


def is_image(path: Path | str) -> bool:
    """Whether a file is a still picture: JPEG, PNG, WebP, TIFF, AVIF, a GIF with one picture in it.

    Raises:
        MediaError: the file cannot be opened.
    """
    with open_input(path) as container:
        return is_still(container, find_video(container, path), path)


def read_video(path: Path | str) -> Iterator[VideoFrame]:
    """Decode the pictures of a video one by one; a still gives one.

    Every picture is uint8 RGB, upright (the container's rotation or EXIF applied), with square
    pixels, of the size of the first, and comes with its own exact time, so that variable rates stay
    what they are.

    Args:
        path: a video or a picture.

    Returns:
        An iterator of `VideoFrame`; times begin at 0 and rise strictly.

    Raises:
        MediaError: at once when the file cannot be opened or has no pictures, while reading when it
            is truncated or damaged (the pictures before that have been given by then).
    """
    container = open_input(path)
    try:
        stream = find_video(container, path)
        if stream is None:
            raise MediaError(f"{path}: has sound but no pictures; give a video or a picture")
        still = is_still(container, stream, path)
        step_s = 1 / (_frame_rate(stream, path) or Fraction(25))
    except MediaError:
        container.close()
        raise
    return _frames(container, stream, path, step_s, still=still)


def read_image(path: Path | str) -> UInt8Array:
    """A still, or the first picture of a video.

    Returns:
        uint8 [height, width, 3] RGB, upright.

    Raises:
        MediaError: the file cannot be read or has no pictures.
    """
    return next(read_video(path)).image


def _frames(
    container: InputContainer,
    stream: VideoStream,
    path: Path | str,
    step_s: Fraction,
    *,
    still: bool,
) -> Iterator[VideoFrame]:
    convert = _converter(stream, path, still=still)
    first_s, last_s = Fraction(0), -step_s
    with container:
        for index, frame in enumerate(decode(container, stream, path)):
            time_s = first_s + last_s + step_s if frame.pts is None else frame.pts * frame.time_base
            if index == 0:
                first_s = time_s
            # Some old recordings repeat a timestamp or have none.
            last_s = time_s - first_s if time_s - first_s > last_s else last_s + step_s
            yield VideoFrame(convert(frame), last_s)


def _converter(stream: VideoStream, path: Path | str, *, still: bool) -> RGBConverter:
    # Frame threads: most codecs then decode on all cores.
    stream.thread_type = "AUTO"
    if still and stream.codec_context.name == "mjpeg":
        # Else a photo cut short would be half grey.
        stream.codec_context.options |= {"err_detect": "explode"}
    # The densities written into stills are rarely meant.
    if still:
        return RGBConverter(matrix=exif_matrix(path))
    return RGBConverter(float(stream.sample_aspect_ratio or 1))


def _frame_rate(stream: VideoStream, path: Path | str) -> Fraction | None:
    """Mean frames per second, or the nominal rate where they agree (30000/1001, not 29.96)."""
    mean, nominal = stream.average_rate, stream.base_rate
    agree = mean and nominal and abs(nominal / mean - 1) < Fraction(1, 100)
    rate = nominal if agree else mean or nominal
    if rate and 0 < rate <= MAX_FPS:
        return Fraction(rate)
    # The nominal rate alone may be the unit of time; a single picture's is anything.
    if mean and mean > MAX_FPS and stream.frames != 1:
        raise MediaError(
            f"{path}: claims {round(mean):,} frames/s; at most {MAX_FPS:,} are read, convert it"
        )
    return None
