"""Opening any media file safely, and decoding one of its streams with an eye on damage."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from talkinghead.errors import MediaError

if TYPE_CHECKING:
    from av.codec import CodecContext
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

MAX_PIXELS = 1 << 27
"""Pictures of more pixels (134 million, about 11,500 x 11,500) are refused, undecoded."""

_MICROSECOND = Fraction(1, 1_000_000)
# Demuxers that draw plain text as pictures, or that open further files named in the one they are
# given.
_REFUSED_FORMATS = {"tty", "bin", "xbin", "adf", "idf", "hls", "dash", "concat", "imf", "sdp"}
# Containers whose header states the length; elsewhere FFmpeg guesses it from the bit rate.
_EXACT_FORMATS = {"mov", "matroska", "avi", "flac", "asf", "flv"}
# How much may be missing at the end before a file counts as truncated.
_SLACK_S = Fraction(1, 4)
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_STILL_BRANDS = {"avif", "heic", "heix", "heif", "mif1"}


def check_readable(path: Path | str) -> Path:
    """The path, when something that is not empty is there.

    Raises:
        MediaError: it is missing, a directory, empty or may not be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise MediaError(f"{path}: is a directory; give a media file")
        if not path.exists():
            raise MediaError(f"{path}: no such file; check the path")
        if path.is_file() and path.stat().st_size == 0:
            raise MediaError(f"{path}: the file is empty; give a media file")
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return path


def open_input(path: Path | str) -> InputContainer:
    """Open a media file of any kind that FFmpeg's libraries know.

    Raises:
        MediaError: the file is missing, a directory, empty, or no media.
    """
    path = check_readable(path)
    # The prefix keeps a name such as `a:b.mp4` from being taken for a protocol, `pattern_type`
    # keeps `100%d.png` one file, and the white list keeps a playlist in disguise from fetching
    # anything.
    options = {"protocol_whitelist": "file", "pattern_type": "none"}
    try:
        container = av.open(f"file:{path}", "r", options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{path}: not a media file that can be read ({reason(error)}); "
            "give an intact video, sound or picture"
        ) from error
    named = set(container.format.name.split(","))
    if named & _REFUSED_FORMATS or not (container.streams.video or container.streams.audio):
        container.close()
        raise MediaError(
            f"{path}: holds neither pictures nor sound; give a video, a sound or a picture"
        )
    return container


def find_video(container: InputContainer, path: Path | str) -> VideoStream | None:
    """The first stream of moving or still pictures, cover art aside; None without one.

    Raises:
        MediaError: its pictures have more than `MAX_PIXELS` or no size, or are the tiles of a
            larger one.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        return None
    if _has_still_brand(container) and len(streams) > 1:
        raise MediaError(
            f"{path}: a HEIF picture in tiles, which are not joined here; convert it to JPEG or PNG"
        )
    width, height = streams[0].codec_context.width, streams[0].codec_context.height
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{path}: {width} x {height} pixels; at most {MAX_PIXELS:,} are read, scale it down"
        )
    if not width * height:
        raise MediaError(
            f"{path}: its pictures cannot be read (damaged, or more than {MAX_PIXELS:,} pixels); "
            "give an intact and smaller file"
        )
    # The decoder holds the limit too: the header may say less than the pictures have.
    streams[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return streams[0]


def is_still(container: InputContainer, stream: VideoStream | None, path: Path | str) -> bool:
    """Whether an open file is one picture rather than a video."""
    name = container.format.name
    if stream is None or container.streams.audio:
        return False
    if name in {"gif", "apng", "webp_anim"}:
        return _count_packets(path, 2) < 2
    return (
        name == "image2"
        or name.endswith("_pipe")
        or (_has_still_brand(container) and stream.frames <= 1)
    )


def decode(container: InputContainer, stream: Stream, path: Path | str) -> Iterator[Any]:
    """Decode one stream, and notice on the way that the file is damaged or stops short.

    Yields:
        PyAV's frames, of pictures or of sound.

    Raises:
        MediaError: the data are damaged, or stop before the length that the header states (WAV,
            MP3, Ogg and MPEG streams state none that can be trusted); what came before that has
            been yielded by then.
    """
    end_s, num_frames = Fraction(0), 0
    exact = container.format.name.split(",")[0] in _EXACT_FORMATS
    decoder: Any = _alpha_decoder(stream) or stream.codec_context
    try:
        for packet in container.demux():
            end_s = max(end_s, _end_s(packet, container))
            if exact and packet.is_corrupt and packet.stream.type in {"video", "audio"}:
                raise _truncated(path, end_s, container, "a cut packet")
            if packet.stream.index != stream.index:
                continue
            try:
                frames = decoder.decode(packet)
            except av.error.InvalidDataError:
                # A recording may begin between two key frames; after the first picture everything
                # must be sound.
                if num_frames:
                    raise
                continue
            num_frames += len(frames)
            yield from frames
    except (av.FFmpegError, MemoryError) as error:
        raise _truncated(path, end_s, container, reason(error)) from error
    if not num_frames:
        raise MediaError(
            f"{path}: nothing in it can be decoded; it is empty or damaged, give an intact file"
        )
    if exact and end_s < (container.duration or 0) * _MICROSECOND - _SLACK_S:
        raise _truncated(path, end_s, container, "the rest is missing")


def _alpha_decoder(stream: Stream) -> CodecContext | None:
    """FFmpeg's own decoders of VP8 and VP9 ignore transparency; libvpx does not."""
    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    tagged = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode") == "1"
    if not tagged or name not in av.codecs_available:
        return None
    return av.CodecContext.create(name, "r")


def container_duration_s(container: InputContainer) -> Fraction:
    """Length of the longest stream as far as the header tells; 0 where it does not."""
    streams = [
        stream.duration * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.duration and stream.time_base
    ]
    return (container.duration or 0) * _MICROSECOND or max(streams, default=Fraction(0))


def reason(error: BaseException) -> str:
    """What an error of FFmpeg or the system says, without the path that the message has already."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def _end_s(packet: Packet, container: InputContainer) -> Fraction:
    time = packet.dts if packet.pts is None else packet.pts
    if time is None or not packet.time_base:
        return Fraction(0)
    # Matroska counts its length from 0, others from the first timestamp: the lenient reading.
    start_s = min(0, container.start_time or 0) * _MICROSECOND
    return (time + (packet.duration or 0)) * packet.time_base - start_s


def _truncated(
    path: Path | str, end_s: Fraction, container: InputContainer, why: str
) -> MediaError:
    duration_s = container_duration_s(container)
    of = f" of {float(duration_s):.2f}" if duration_s > end_s else ""
    return MediaError(
        f"{path}: truncated or damaged, {float(end_s):.2f}{of} s could be read ({why}); "
        "give an intact file"
    )


def _has_still_brand(container: InputContainer) -> bool:
    return container.metadata.get("major_brand", "").strip() in _STILL_BRANDS


def _count_packets(path: Path | str, limit: int) -> int:
    with open_input(path) as container:
        return sum(packet.size > 0 for packet in islice(container.demux(), limit))
