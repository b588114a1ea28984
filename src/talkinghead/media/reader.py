"""Reading of media files: properties, video frames as upright RGB, audio as mono float32.

All formats that FFmpeg decodes are supported. Files are streamed, not held in memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import av

from talkinghead.errors import MediaError
from talkinghead.media.animated_webp import is_animated_webp, probe_animation, read_animation
from talkinghead.media.audio_decoding import read_audio, stream_audio
from talkinghead.media.container import (
    MAX_PIXELS,
    container_duration_s,
    decode,
    find_audio,
    find_video,
    is_still,
    open_input,
    reason,
)
from talkinghead.media.decoding.colour_profile import srgb_conversion
from talkinghead.media.decoding.pillow_photo import is_pillow_photo, read_pillow_photo
from talkinghead.media.decoding.tone_mapping import HDRFormat
from talkinghead.media.decoding.video_image import DecodedFrame
from talkinghead.media.deinterlacing import deinterlace
from talkinghead.media.image import (
    BT709,
    UNSUPPORTED_FORMATS,
    UNSUPPORTED_MATRICES,
    ColourTags,
    ImageConverter,
    RGBConverter,
    exif_matrix,
)
from talkinghead.types import UInt8Array, VideoFrame

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame as AVFrame
    from av.video.stream import VideoStream

__all__ = [
    "MAX_FPS",
    "MAX_PIXELS",
    "VIDEO_SUFFIXES",
    "MediaInfo",
    "grid_frames",
    "is_image",
    "list_video_files",
    "probe",
    "read_audio",
    "read_frames",
    "read_image",
    "read_video",
    "stream_audio",
]

log = logging.getLogger(__name__)

_Image = TypeVar("_Image")

MAX_FPS = 1000
"""Maximum frame rate of videos; at higher rates, rendering a second of speech takes hours."""

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".flv"),
        *(".wmv", ".3gp", ".ogv", ".mts"),
    )
)


@dataclass(frozen=True)
class MediaInfo:
    """Properties of a media file, from its header and its first frame.

    Attributes:
        width: width of upright frames with square pixels, as `read_video` returns them; 0 without
            video.
        height: height of the same frames.
        fps: exact frame rate (the mean of a variable rate); None for still images and audio.
        duration_s: duration of the longest stream; 0 for still images and where it is unknown.
        has_video: whether the file has video or is an image (cover art does not count).
        has_audio: whether the file has audio.
        is_image: whether the file is a still image.
        sample_rate: stored sample rate in Hz; None without audio.
        colour: colour tags of a video; the default output tags for an image.
        num_audio_tracks: number of audio tracks.
        audio_track: index, among the audio tracks, of the default track, which is read.
        hdr: HDR format of a video, which `read_video` tone-maps; None without HDR.
    """

    width: int
    height: int
    fps: Fraction | None
    duration_s: Fraction
    has_video: bool
    has_audio: bool
    is_image: bool
    sample_rate: int | None
    colour: ColourTags = BT709
    num_audio_tracks: int = 0
    audio_track: int = 0
    hdr: HDRFormat | None = None


def probe(path: Path | str) -> MediaInfo:
    """Read the properties of a file; at most one frame is decoded.

    Raises:
        MediaError: the file is missing, a directory, empty, damaged or not a media file.
    """
    if is_animated_webp(path):
        return _probe_animated_webp(path)
    if is_pillow_photo(path):
        height, width, _ = read_pillow_photo(path).shape
        return MediaInfo(width, height, None, Fraction(0), True, False, True, None)
    with open_input(path) as container:
        stream = find_video(container, path)
        audio = find_audio(container)
        still = is_still(container, stream, path)
        fps = None if stream is None or still else _frame_rate(stream, path)
        duration_s = Fraction(0) if still else container_duration_s(container)
        width = height = 0
        colour, hdr = BT709, None
        if stream is not None:
            convert = _converter(stream, path, still=still)
            height, width, _ = _convert(next(decode(container, stream, path)), path, convert).shape
            colour, hdr = (colour, None) if still else (convert.colour, convert.hdr)
        return MediaInfo(
            width=width,
            height=height,
            fps=fps,
            duration_s=duration_s,
            has_video=stream is not None,
            has_audio=audio is not None,
            is_image=still,
            sample_rate=None if audio is None else audio.sample_rate,
            colour=colour,
            num_audio_tracks=len(container.streams.audio),
            audio_track=0 if audio is None else list(container.streams.audio).index(audio),
            hdr=hdr,
        )


def _probe_animated_webp(path: Path | str) -> MediaInfo:
    found = probe_animation(path)
    still = found.num_frames < 2
    return MediaInfo(
        width=found.width,
        height=found.height,
        fps=None if still else found.num_frames / found.duration_s,
        duration_s=Fraction(0) if still else found.duration_s,
        has_video=True,
        has_audio=False,
        is_image=still,
        sample_rate=None,
    )


def is_image(path: Path | str) -> bool:
    """Return whether a file is a still image, such as JPEG, PNG, TIFF, or a GIF of one frame.

    Raises:
        MediaError: the file cannot be opened.
    """
    if is_animated_webp(path):
        return probe_animation(path).num_frames < 2
    if is_pillow_photo(path):
        return True
    with open_input(path) as container:
        return is_still(container, find_video(container, path), path)


def read_video(path: Path | str) -> Iterator[VideoFrame]:
    """Decode the frames of a video one by one; a still image has one frame.

    Frames are uint8 RGB, upright (container rotation or EXIF applied), deinterlaced, with square
    pixels, and of the size of the first. Each has its exact timestamp, also at variable frame
    rates; times start at 0 and rise strictly.

    Raises:
        MediaError: on calling, the file cannot be opened or has no video; while iterating, it is
            truncated or damaged (earlier frames have been yielded).

    Example:
        >>> for frame in read_video("speaker.mp4"):
        ...     process(frame.image, frame.time_s)
    """
    if is_animated_webp(path):
        return read_animation(path)
    if is_pillow_photo(path):
        return iter([VideoFrame(read_pillow_photo(path), Fraction(0))])
    opened = _open_video(path)
    convert = _converter(opened.stream, path, still=opened.is_still)
    return (VideoFrame(*frame) for frame in _frames(opened, path, convert))


def read_frames(path: Path | str, *, keep_hdr: bool = True) -> Iterator[DecodedFrame]:
    """Decode the frames of a video one by one, without a conversion to RGB where possible.

    Apart from that, as `read_video`. The conversion of the parts that are needed differs by at most
    a few levels from that of `read_video`. `keep_hdr` is that of `VideoImage`.

    Raises:
        MediaError: see `read_video`.
    """
    if is_animated_webp(path):
        animation = read_animation(path)
        return (DecodedFrame(f.image, f.time_s, f.pts, f.is_key) for f in animation)
    if is_image(path):
        return (DecodedFrame(f.image, f.time_s, f.pts, f.is_key) for f in read_video(path))
    opened = _open_video(path)
    _prepare(opened.stream, path)
    aspect = float(opened.stream.sample_aspect_ratio or 1)
    convert = ImageConverter(aspect, keep_hdr=keep_hdr)
    return (DecodedFrame(*frame) for frame in _frames(opened, path, convert))


def read_image(path: Path | str) -> UInt8Array:
    """Read a still image, or the first frame of a video: uint8 [height, width, 3] RGB, upright.

    Raises:
        MediaError: the file cannot be read or has no video.
    """
    return next(read_video(path)).image


def list_video_files(folder: Path) -> list[Path]:
    """Return the video files in a folder and its subfolders, sorted by path.

    Hidden files and folders are left out. A warning is logged for folders that cannot be read, and
    for links without a file.
    """

    def warn(error: OSError) -> None:
        log.warning("%s is skipped: it cannot be read (%s)", error.filename, error.strerror)

    found = []
    for parent, folders, names in os.walk(folder, onerror=warn):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() not in VIDEO_SUFFIXES:
                continue
            try:
                if path.is_file():
                    found.append(path)
                elif path.is_symlink():
                    log.warning("%s is skipped: the link has no file", path)
            except OSError as error:
                warn(error)
    return sorted(found)


def grid_frames(frames: Iterable[VideoFrame], fps: Fraction) -> Iterator[VideoFrame]:
    """Yield frames at a constant rate, each with the image displayed at the middle of the frame.

    Output frame `k` is at time `k / fps`. The input may have any constant or variable rate. A video
    with the output rate is unchanged, even if its timestamps are rounded. The last image is
    displayed as long as the image before it.
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


class _OpenVideo(NamedTuple):
    """An open file with video: `step_s` is the duration of a frame at its frame rate."""

    container: InputContainer
    stream: VideoStream
    is_still: bool
    step_s: Fraction


def _open_video(path: Path | str) -> _OpenVideo:
    container = open_input(path)
    try:
        stream = find_video(container, path)
        if stream is None:
            raise MediaError(f"{path}: has audio but no video; give a video or an image")
        still = is_still(container, stream, path)
        step_s = 1 / (_frame_rate(stream, path) or Fraction(25))
    except MediaError:
        container.close()
        raise
    return _OpenVideo(container, stream, still, step_s)


def _frames(
    video: _OpenVideo, path: Path | str, convert: Callable[[AVFrame], _Image]
) -> Iterator[tuple[_Image, Fraction, int | None, bool]]:
    """Yield the images with their times, timestamps, and whether they are key frames."""
    container, stream, _, step_s = video
    first_s, last_s = Fraction(0), -step_s
    with container:
        frames = deinterlace(decode(container, stream, path))
        for index, (frame, is_combined) in enumerate(frames):
            time_s = first_s + last_s + step_s
            if frame.pts is not None and frame.time_base:
                time_s = frame.pts * frame.time_base
            if index == 0:
                first_s = time_s
            # Some recordings have repeated or missing timestamps.
            last_s = time_s - first_s if time_s - first_s > last_s else last_s + step_s
            # A frame that depends on its neighbours cannot be decoded alone.
            pts = None if is_combined else frame.pts
            yield _convert(frame, path, convert), last_s, pts, frame.key_frame


def _convert(frame: AVFrame, path: Path | str, convert: Callable[[AVFrame], _Image]) -> _Image:
    try:
        return convert(frame)
    except (av.FFmpegError, OSError) as error:
        raise _bad_format(path, frame.format.name, reason(error)) from error


def _bad_format(path: Path | str, name: str, cause: str) -> MediaError:
    return MediaError(
        f"{path}: its pixel format {name} cannot be converted ({cause}); save it in another "
        "format, such as PNG or MP4"
    )


class _PhotoConverter(RGBConverter):
    """Converter of a photo to an upright image in sRGB."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(matrix=exif_matrix(path))
        self._to_srgb = srgb_conversion(path)

    def __call__(self, frame: AVFrame) -> UInt8Array:
        image = super().__call__(frame)
        return image if self._to_srgb is None else self._to_srgb(image)


def _prepare(stream: VideoStream, path: Path | str) -> None:
    """Use all cores for the decoding of a stream, whose colours must be supported."""
    context = stream.codec_context
    if context.format and context.format.name in UNSUPPORTED_FORMATS:
        raise _bad_format(path, context.format.name, "not supported")
    name = UNSUPPORTED_MATRICES.get(int(context.colorspace))
    if name is not None and not (context.format and context.format.is_rgb):
        raise MediaError(
            f"{path}: its colours are coded as {name}, which is not supported; convert it with "
            "ffmpeg -i INPUT -vf scale=out_color_matrix=bt709 -pix_fmt yuv420p OUTPUT"
        )
    # With frame threading, most codecs use all cores.
    stream.thread_type = "AUTO"


def _converter(stream: VideoStream, path: Path | str, *, still: bool) -> RGBConverter:
    _prepare(stream, path)
    if still and stream.codec_context.name == "mjpeg":
        # A truncated photo must be an error. By default its missing part would be decoded as grey.
        stream.codec_context.options |= {"err_detect": "explode"}
    # The pixel density of a still image is ignored, as it is rarely meaningful.
    if still:
        return _PhotoConverter(path)
    return RGBConverter(float(stream.sample_aspect_ratio or 1))


def _frame_rate(stream: VideoStream, path: Path | str) -> Fraction | None:
    """Return the nominal frame rate if it is within 1 % of the mean rate, else the mean rate.

    Unlike the mean, the nominal rate is exact: 30000/1001, not 29.96. None if no rate is valid.
    """
    mean, nominal = stream.average_rate, stream.base_rate
    if mean and nominal and mean > MAX_FPS >= nominal:
        # The mean rate of raw streams, such as DV, may be the inverse of the time base.
        mean = nominal
    agree = mean and nominal and abs(nominal / mean - 1) < Fraction(1, 100)
    rate = nominal if agree else mean or nominal
    if rate and 0 < rate <= MAX_FPS:
        return Fraction(rate)
    # Without a mean rate, the nominal rate may be only the time base, and the rate of one frame is
    # arbitrary. Neither is an error.
    if mean and mean > MAX_FPS and stream.frames != 1:
        raise MediaError(
            f"{path}: has {round(mean):,} frames/s; at most {MAX_FPS:,} are supported, convert it"
        )
    return None
