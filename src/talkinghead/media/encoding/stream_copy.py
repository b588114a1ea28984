"""Streams of other files that are copied into an output file without encoding."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

from talkinghead.media.container import decode, find_audio, find_video, is_still, open_input
from talkinghead.media.encoding.output_formats import OutputFormat

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.container.core import Chapter
    from av.packet import Packet
    from av.stream import Stream
    from av.subtitles.codeccontext import SubtitleCodecContext
    from av.subtitles.stream import SubtitleStream

log = logging.getLogger(__name__)

# Containers whose timestamps are reliable enough to copy audio.
_EXACT_CONTAINERS = {"mov", "matroska", "flac", "mp3", "ogg", "wav"}
# Codecs whose packets cannot be decoded without a header.
_NEEDS_HEADER = {"aac", "alac", "flac", "opus", "vorbis"}
# Names of decoders for the names of their codecs.
_CODEC_ALIASES = {
    **{"libopus": "opus", "libvorbis": "vorbis", "mp3float": "mp3"},
    **{"srt": "subrip", "ssa": "ass"},
}
# A longer gap between packets must be filled with silence, so the audio is encoded.
_MAX_GAP_S = Fraction(1, 20)
# Bits with which each MP3 frame begins. Tags between the frames do not.
_MP3_SYNC = 0xFFE0
# The longest audio before the first video frame that is left to the player to skip.
_MAX_EARLY_S = Fraction(1, 10)
# Codecs of subtitles that can be converted to each other.
_TEXT_SUBTITLES = frozenset({"subrip", "ass", "ssa", "webvtt", "mov_text", "text"})
# Fields of an event of ASS before its text.
_NUM_FIELDS = 8


@dataclass(frozen=True)
class CopiedStreams:
    """Streams of a file to be copied, and the time in the file that becomes time 0.

    Attributes:
        path: the file.
        indices: indices of the streams.
        start_s: time in the file, in seconds, that is time 0 of the output.
        end_s: end of the audio in the output, in seconds; None where it is not needed.
        sample_rate: sample rate of the audio; None where it is not needed.
        converted: for the indices of text subtitles that are converted, their new codecs.
    """

    path: Path
    indices: tuple[int, ...]
    start_s: Fraction
    end_s: Fraction | None = None
    sample_rate: int | None = None
    converted: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KeptContent:
    """Everything of a video besides its images and its default audio that an output keeps.

    Attributes:
        streams: other audio tracks and subtitles.
        chapters: chapters as PyAV returns them, with times of the output.
        metadata: tags of the container.
    """

    streams: CopiedStreams | None = None
    chapters: tuple[Chapter, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def copied_audio(path: Path | str, output: OutputFormat) -> CopiedStreams | None:
    """Return the default audio stream of a file if it can be copied exactly; None otherwise.

    It is copied if the format supports its codec and the packets follow each other without gaps, so
    that the audio that is heard is the audio that was analysed.

    Raises:
        MediaError: the file cannot be read or has no audio.
    """
    with open_input(path) as container:
        stream = find_audio(container)
        if stream is None or not _is_copyable(container, stream, output):
            return None
        start_s = _start_s(container, stream, path)
        span = _gapless_span_s(container, stream)
        if span is None or span[0] < start_s - _MAX_EARLY_S:
            return None
        rate = stream.codec_context.sample_rate
        return CopiedStreams(Path(path), (stream.index,), start_s, span[1] - start_s, rate)


def kept_content(path: Path | str, output: OutputFormat) -> KeptContent:
    """Return what an output can keep of a video; a warning names what it cannot.

    Raises:
        MediaError: the file cannot be read.
    """
    with open_input(path) as container:
        replaced = find_audio(container)
        others = [
            stream
            for stream in (*container.streams.audio, *container.streams.subtitles)
            if replaced is None or stream.index != replaced.index
        ]
        supported = output.copied_audio | output.copied_subtitles
        kept, converted = [], {}
        for stream in others:
            codec = _convertible_codec(_codec_name(stream), output.text_subtitles)
            if _codec_name(stream) in supported:
                kept.append(stream)
            elif codec is not None:
                kept.append(stream)
                converted[stream.index] = codec
            else:
                log.warning(
                    "%s: the %s track in the format %s cannot be kept in %s; left out",
                    *(path, stream.type, _codec_name(stream) or "unknown", output.muxer),
                )
        start_s = _video_start_s(container, path) or Fraction(0)
        indices = tuple(stream.index for stream in kept)
        streams = CopiedStreams(Path(path), indices, start_s, converted=converted)
        chapters = tuple(container.chapters()) if output.has_audio else ()
        # The file's own major brand and encoder do not describe the output.
        technical = {"major_brand", "minor_version", "compatible_brands", "encoder"}
        # Matroska writes some keys in upper case.
        tags = {key.lower(): value for key, value in container.metadata.items()}
        metadata = {key: value for key, value in tags.items() if key not in technical}
        return KeptContent(streams if kept else None, _shifted(chapters, start_s), metadata)


class StreamCopier:
    """The packets of copied streams, in the order of their times.

    They are added to the container, whose header is not written yet.

    Raises:
        MediaError: the file cannot be read.
    """

    def __init__(self, container: OutputContainer, copied: CopiedStreams) -> None:
        self._input = open_input(copied.path)
        self._start_s = copied.start_s
        self._streams: dict[int, Stream] = {}
        self._converters: dict[int, _SubtitleConverter] = {}
        for index in copied.indices:
            source = self._input.streams[index]
            if index in copied.converted:
                converter = _SubtitleConverter(source, container, copied.converted[index])
                self._converters[index], target = converter, cast("Stream", converter.target)
            else:
                target = container.add_stream_from_template(source)
            for key in ("language", "title"):
                if key in source.metadata:
                    target.metadata[key] = source.metadata[key]
            self._streams[index] = target
        self._packets = self._demux()
        self._next: Packet | None = None

    def packets_until(self, time_s: Fraction | None) -> Iterator[Packet]:
        """Yield the next packets up to a time of the output in seconds, or all if it is None."""
        while True:
            packet = self._next or next(self._packets, None)
            self._next = packet
            if packet is None or (time_s is not None and _time_s(packet) > time_s):
                return
            self._next = None
            yield packet

    def close(self) -> None:
        """Close the file."""
        self._input.close()

    def _demux(self) -> Iterator[Packet]:
        sources = [self._input.streams[index] for index in self._streams]
        for source in self._input.demux(sources):
            if source.dts is None or not source.size:
                continue
            index, packet = source.stream.index, source
            if index in self._converters:
                converted = self._converters[index].convert(source)
                if converted is None:
                    continue
                packet = converted
            shift = round(self._start_s / packet.time_base)
            packet.dts = source.dts - shift
            if packet.pts is not None:
                packet.pts -= shift
            is_early = (packet.dts + (packet.duration or 0)) * packet.time_base <= -_MAX_EARLY_S
            packet.stream = self._streams[index]
            if not is_early:
                yield packet


def _is_copyable(container: InputContainer, stream: AudioStream, output: OutputFormat) -> bool:
    name, codec = container.format.name.split(",")[0], _codec_name(stream)
    has_header = bool(stream.codec_context.extradata) or codec not in _NEEDS_HEADER
    return name in _EXACT_CONTAINERS and codec in output.copied_audio and has_header


def _codec_name(stream: Stream) -> str:
    """Return the name of a stream's codec, without the name of the library that decodes it."""
    name = stream.codec_context.name if stream.codec_context is not None else ""
    return _CODEC_ALIASES.get(name, name)


def _start_s(container: InputContainer, stream: AudioStream, path: Path | str) -> Fraction:
    """Return the time of sample 0 of the decoded audio, in seconds of the file."""
    start_s = _video_start_s(container, path)
    if start_s is None:
        frame = next(decode(container, stream, path))
        start_s = (frame.pts or 0) * frame.time_base
        container.seek(0)
    return start_s


def _video_start_s(container: InputContainer, path: Path | str) -> Fraction | None:
    video = find_video(container, path)
    if video is None or video.start_time is None or not video.time_base:
        return None
    return None if is_still(container, video, path) else video.start_time * video.time_base


def _gapless_span_s(
    container: InputContainer, stream: AudioStream
) -> tuple[Fraction, Fraction] | None:
    """Return the start and end in seconds of a stream without gaps; None if there are gaps."""
    first_s = end_s = None
    is_mp3 = _codec_name(stream) == "mp3"
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None or packet.is_corrupt or not packet.duration:
            return None
        if is_mp3 and (int.from_bytes(bytes(packet)[:2]) & _MP3_SYNC) != _MP3_SYNC:
            return None
        start_s = packet.pts * packet.time_base
        if end_s is not None and abs(start_s - end_s) > _MAX_GAP_S:
            return None
        first_s = start_s if first_s is None else first_s
        end_s = start_s + packet.duration * packet.time_base
    return None if first_s is None or end_s is None else (first_s, end_s)


def _shifted(chapters: tuple[Chapter, ...], start_s: Fraction) -> tuple[Chapter, ...]:
    """Return chapters with times relative to `start_s`; those that end before are left out."""
    found: list[Chapter] = []
    for chapter in chapters:
        shift = round(start_s / (chapter["time_base"] or 1))
        start, end = max(0, chapter["start"] - shift), chapter["end"] - shift
        if end > start:
            found.append({**chapter, "start": start, "end": end})
    return tuple(found)


def _time_s(packet: Packet) -> Fraction:
    return (packet.dts or 0) * packet.time_base


class _SubtitleConverter:
    """A converter of the packets of a stream of text subtitles, which keeps text, times and style.

    `codec` is FFmpeg's name of the new format. The container gets the stream `target`.
    """

    def __init__(self, source: Stream, container: OutputContainer, codec: str) -> None:
        self._decoder = cast("SubtitleCodecContext", source.codec_context)
        self._decoder.open(strict=False)
        self.target = cast("SubtitleStream", container.add_stream(codec))
        self._encoder = self.target.codec_context
        # Encoders of text read the events of ASS, whose header defines the styles.
        self._encoder.subtitle_header = self._decoder.subtitle_header

    def convert(self, packet: Packet) -> Packet | None:
        """Return a packet with the same times, None if it contains no text that can be read."""
        duration = packet.duration or 0
        try:
            decoded = self._decoder.decode2(packet)
            texts = [_event_text(rect) for rect in decoded or () if isinstance(rect, AssSubtitle)]
            text = b"\\N".join(filter(None, texts))
            if not text:
                return None
            event = SubtitleSet.create(b"0,0,Default,,0,0,0,," + text, 0, duration)
            converted = self._encoder.encode_subtitle(event)
        except (av.FFmpegError, UnicodeError):
            return None
        converted.time_base = packet.time_base
        converted.pts, converted.dts, converted.duration = packet.pts, packet.dts, duration
        return converted


def _convertible_codec(codec: str, target: str | None) -> str | None:
    """Return the codec to which text subtitles are converted, None if they cannot be."""
    if codec not in _TEXT_SUBTITLES or target not in av.codecs_available:
        return None
    return target


def _event_text(subtitle: AssSubtitle) -> bytes:
    return subtitle.ass.split(b",", _NUM_FIELDS)[-1]
