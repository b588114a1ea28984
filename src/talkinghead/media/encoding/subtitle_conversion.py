"""Conversion of text subtitles between the formats of containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import av
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.subtitles.codeccontext import SubtitleCodecContext
    from av.subtitles.stream import SubtitleStream

TEXT_SUBTITLES = frozenset({"subrip", "ass", "ssa", "webvtt", "mov_text", "text"})
"""Codecs of subtitles that can be converted to each other."""
# Fields of an event of ASS before its text.
_NUM_FIELDS = 8


class SubtitleConverter:
    """A converter of the packets of a stream of text subtitles, which keeps text, times and style.

    Args:
        source: the stream.
        container: the output, before its header is written; it gets the stream `target`.
        codec: FFmpeg's name of the new format.

    Attributes:
        target: the new stream.
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
            texts = [_text(rect) for rect in decoded or () if isinstance(rect, AssSubtitle)]
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


def convertible_codec(codec: str, target: str | None) -> str | None:
    """Return the codec to which text subtitles are converted, None if they cannot be."""
    if codec not in TEXT_SUBTITLES or target not in av.codecs_available:
        return None
    return target


def _text(subtitle: AssSubtitle) -> bytes:
    return subtitle.ass.split(b",", _NUM_FIELDS)[-1]
