"""Safe opening of media files, and decoding with detection of damage and truncation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import av
from PIL import Image

from talkinghead.errors import MediaError
from talkinghead.media.decoding.channel_layouts import read_layout

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.codec import CodecContext
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

_StreamT = TypeVar("_StreamT", bound="Stream")

MAX_PIXELS = 1 << 27
"""Maximum number of pixels of an image (134 million); larger images raise an error."""

_MICROSECOND = Fraction(1, 1_000_000)
# Demuxers that render plain text as video, or that open other files named in the input.
_REFUSED_FORMATS = {"tty", "bin", "xbin", "adf", "idf", "hls", "dash", "concat", "imf", "sdp"}
# Demuxers of audio without a header, which FFmpeg also chooses for some raw samples.
_HEADERLESS_FORMATS = {"adp", "amrnb", "amrwb"}
# Containers whose header states the duration. For other containers FFmpeg estimates the duration
# from the bit rate.
_EXACT_FORMATS = {"mov", "matroska", "avi", "flac", "asf", "flv", "ogg"}
# Formats of audio frames that do not depend on each other. Files of them are often concatenated,
# with tags between the frames, and players skip what they cannot decode.
_CONCATENABLE_FORMATS = {"mp3", "aac", "ac3", "eac3", "dts"}
# A file counts as truncated if more than this duration is missing at the end.
_SLACK_S = Fraction(1, 4)
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 768_000
"""Plausible sample rates in Hz. At a lower one, a short file lasts hours."""
_STILL_BRANDS = {"avif", "heic", "heix", "heif", "mif1"}
# Brands of animated images, which also contain a still image as another stream.
_SEQUENCE_BRANDS = {"avis", "hevc", "hevx", "msf1"}


def _check_readable(path: Path) -> None:
    try:
        if path.is_dir():
            raise MediaError(f"{path}: is a directory; give a media file")
        if not path.exists():
            raise MediaError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise MediaError(
                f"{path}: is a pipe or a device, but media files are read several times; write its "
                "content to a file, and give the file"
            )
        if path.stat().st_size == 0:
            raise MediaError(f"{path}: the file is empty; give a media file")
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def open_input(path: Path | str) -> InputContainer:
    """Open a media file of any format that FFmpeg supports.

    Raises:
        MediaError: the file is missing, a directory, empty, or not a media file.
    """
    path = Path(path)
    _check_readable(path)
    # `file:` allows file names such as `a:b.mp4`, and `pattern_type` allows `100%d.png`. The
    # whitelist prevents a disguised playlist from opening network addresses.
    options = {"protocol_whitelist": "file", "pattern_type": "none"}
    try:
        container = av.open(f"file:{path}", "r", options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{path}: not a media file that can be read ({reason(error)}); "
            "give an intact video, audio or image file"
        ) from error
    named = set(container.format.name.split(","))
    if named & _HEADERLESS_FORMATS:
        container.close()
        raise MediaError(
            f"{path}: has no header that states its format; convert raw samples to WAV"
        )
    readable = [s for s in (*container.streams.video, *container.streams.audio) if s.codec_context]
    if named & _REFUSED_FORMATS or not readable:
        container.close()
        raise MediaError(
            f"{path}: contains neither video nor audio; give a video, audio or image file"
        )
    return container


def read_tags(file: BinaryIO, name: Path | str, muxer: str) -> dict[str, str]:
    """Return the tags of an output file, with names in lower case.

    Args:
        file: the open file.
        name: name of the file for error messages.
        muxer: FFmpeg's name of its container; "image2" for a PNG or JPEG file, which has at most a
            comment.

    Raises:
        MediaError: the file is damaged or has another format.
    """
    try:
        if muxer == "image2":
            with Image.open(file, formats=["PNG", "JPEG"]) as image:
                tags = {str(key): value for key, value in image.info.items()}
        else:
            with av.open(file, "r", format=muxer, metadata_errors="replace") as container:
                tags = dict(container.metadata)
    except (
        av.FFmpegError,
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise MediaError(
            f"{name}: its tags cannot be read ({reason(error)}); give an intact file"
        ) from error
    return {
        key.lower(): value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for key, value in tags.items()
    }


def find_audio(container: InputContainer) -> AudioStream | None:
    """Return the first audio stream that is marked as default, or else the first; None if none.

    Raises:
        MediaError: the sample rate in its header is not plausible.
    """
    stream = _default_stream([one for one in container.streams.audio if _is_audible(one)])
    if stream is not None and not MIN_SAMPLE_RATE <= stream.sample_rate <= MAX_SAMPLE_RATE:
        raise MediaError(
            f"{container.name.removeprefix('file:')}: audio at {stream.sample_rate:,} Hz; "
            f"{MIN_SAMPLE_RATE:,} to {MAX_SAMPLE_RATE:,} Hz are read, convert it"
        )
    return stream


def _is_audible(stream: AudioStream) -> bool:
    """Return whether a stream has a known codec, channels and a sample rate."""
    context = stream.codec_context
    return bool(context and read_layout(context).nb_channels > 0 and stream.sample_rate)


def _default_stream(streams: list[_StreamT]) -> _StreamT | None:
    default = av.stream.Disposition.default
    marked = [stream for stream in streams if stream.disposition & default]
    return next(iter(marked or streams), None)


def find_video(container: InputContainer, path: Path | str) -> VideoStream | None:
    """Return the default video or image stream that is not cover art; None if there is none.

    The default stream is the first that is marked as such, or else the first of all.

    Raises:
        MediaError: the frames have more than `MAX_PIXELS` or no size, or are tiles of one image.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [
        stream
        for stream in container.streams.video
        if stream.codec_context and not stream.disposition & cover
    ]
    if not streams:
        return None
    if _has_still_brand(container) and len(streams) > 1:
        raise MediaError(
            f"{path}: a tiled HEIF image, which is not supported; convert it to JPEG or PNG"
        )
    if _brand(container) in _SEQUENCE_BRANDS:
        streams = [max(streams, key=lambda stream: stream.frames)]
    stream = _default_stream(streams)
    assert stream is not None
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{path}: {width} x {height} pixels; at most {MAX_PIXELS:,} are read, scale it down"
        )
    if not width * height:
        raise MediaError(
            f"{path}: its frames cannot be read (damaged, or more than {MAX_PIXELS:,} pixels); "
            "give an intact and smaller file"
        )
    # The decoder must check the limit too, as the size in the header may be wrong.
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def is_still(container: InputContainer, stream: VideoStream | None, path: Path | str) -> bool:
    """Return whether an open file is a still image."""
    name = container.format.name
    if stream is None or container.streams.audio:
        return False
    if name in {"gif", "apng", "webp_anim"}:
        with open_input(path) as copy:
            return sum(packet.size > 0 for packet in islice(copy.demux(), 2)) < 2
    is_photo = _has_still_brand(container) and stream.frames <= 1
    return is_photo or name == "image2" or name.endswith("_pipe")


def decode(container: InputContainer, stream: Stream, path: Path | str) -> Iterator[Any]:
    """Decode one stream and yield PyAV frames; raise an error for damage and truncation.

    In files that can be concatenated, such as MP3, packets that are not audio are skipped, with a
    warning.

    Raises:
        MediaError: the data are damaged, or end before the duration in the header (that of WAV,
            MP3 and MPEG streams is not reliable and not checked). The frames before the fault
            have been yielded.
    """
    end_s, num_frames, num_skipped = Fraction(0), 0, 0
    name = container.format.name.split(",")[0]
    exact = name in _EXACT_FORMATS
    decoder: Any = alpha_decoder(stream) or stream.codec_context
    try:
        for packet in container.demux():
            end_s = max(end_s, _end_s(packet, container))
            if exact and packet.is_corrupt and packet.stream.type in {"video", "audio"}:
                raise _truncated(path, end_s, container, "a packet is truncated")
            if packet.stream.index != stream.index:
                continue
            try:
                frames = decoder.decode(packet)
            except av.error.InvalidDataError:
                # A recording may start between two key frames, so errors before the first decoded
                # frame are ignored.
                if num_frames and name not in _CONCATENABLE_FORMATS:
                    raise
                num_skipped += num_frames > 0
                continue
            num_frames += len(frames)
            yield from frames
    except (av.FFmpegError, MemoryError) as error:
        raise _truncated(path, end_s, container, reason(error)) from error
    if not num_frames:
        raise MediaError(
            f"{path}: no frame can be decoded; the stream is empty or damaged, give an intact file"
        )
    if num_skipped:
        _report_skipped(path, num_skipped)
    if exact and end_s < (container.duration or 0) * _MICROSECOND - _SLACK_S:
        raise _truncated(path, end_s, container, "the rest is missing")


@cache
def _report_skipped(path: Path | str, num_skipped: int) -> None:
    """Log once that packets were skipped, as files are read several times."""
    log.warning("%s: %d packets that are damaged or no audio were skipped", path, num_skipped)


def alpha_decoder(stream: Stream) -> CodecContext | None:
    """Return a libvpx decoder for a VP8 or VP9 stream with alpha; None for other streams.

    FFmpeg's own decoders ignore the alpha channel.
    """
    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    tagged = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode") == "1"
    if not tagged or name not in av.codecs_available:
        return None
    return av.CodecContext.create(name, "r")


def container_duration_s(container: InputContainer) -> Fraction:
    """Return the duration of the longest stream in seconds, from the header; 0 if unknown."""
    streams = [
        stream.duration * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.duration and stream.time_base
    ]
    return (container.duration or 0) * _MICROSECOND or max(streams, default=Fraction(0))


def reason(error: BaseException) -> str:
    """Return the message of an FFmpeg or system error, without the path."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def _end_s(packet: Packet, container: InputContainer) -> Fraction:
    time = packet.dts if packet.pts is None else packet.pts
    if time is None or not packet.time_base:
        return Fraction(0)
    # Matroska counts the duration from time 0, other formats from the first timestamp.
    start_s = min(0, container.start_time or 0) * _MICROSECOND
    return (time + (packet.duration or 0)) * packet.time_base - start_s


def _truncated(
    path: Path | str, end_s: Fraction, container: InputContainer, cause: str
) -> MediaError:
    duration_s = container_duration_s(container)
    of = f" of {float(duration_s):.2f}" if duration_s > end_s else ""
    return MediaError(
        f"{path}: truncated or damaged, {float(end_s):.2f}{of} s could be read ({cause}); "
        "give an intact file"
    )


def _has_still_brand(container: InputContainer) -> bool:
    return _brand(container) in _STILL_BRANDS


def _brand(container: InputContainer) -> str:
    return str(container.metadata.get("major_brand", "")).strip()
