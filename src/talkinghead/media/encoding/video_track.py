"""Encoding of the video track of an output file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.filter import Graph

from talkinghead.media.encoding.frame_conversion import FrameConverter
from talkinghead.media.encoding.patched_image import PatchedImage
from talkinghead.media.encoding.video_encoder import VideoEncoder
from talkinghead.media.image import ColourTags
from talkinghead.types import UInt8Array

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.filter.context import FilterContext
    from av.packet import Packet
    from av.video.frame import VideoFrame as AVFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

# Frames are reordered by less than this time.
_MAX_DELAY_S = 100

# GIF stores times in hundredths of a second; browsers slow down frames of less than two.
_GIF_TICKS_PER_S, _MIN_GIF_TICKS = 100, 2
# One palette, that of the first frames, because changing palettes make a still background flicker.
_NUM_PALETTE_FRAMES = 50
_DITHER = "dither=bayer:bayer_scale=4:diff_mode=rectangle"


class YUVTrack:
    """A track of an encoder that takes YUV frames.

    Times are in units of 1 / `ticks_per_s`.
    """

    def __init__(
        self,
        container: OutputContainer,
        encoder: VideoEncoder,
        converter: FrameConverter,
        fps: Fraction,
        ticks_per_s: int,
        colour: ColourTags,
    ) -> None:
        self._convert, self._time_base = converter, Fraction(1, ticks_per_s)
        added = container.add_stream(encoder.name, rate=fps, options=dict(encoder.options))
        stream = cast("VideoStream", added)
        context = stream.codec_context
        stream.width, stream.height = converter.width, converter.height
        stream.pix_fmt = converter.pix_fmt
        context.time_base = stream.time_base = self._time_base
        context.colorspace, context.color_range = colour.matrix, colour.range
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        if encoder.codec_tag:
            context.codec_tag = encoder.codec_tag
        self._stream = stream

    def encode(self, image: UInt8Array | PatchedImage, pts: int, duration: int) -> list[Packet]:
        """Return the packets that are ready after an image; times are in ticks of the track."""
        frame = self._convert(image)
        frame.pts, frame.time_base, frame.duration = pts, self._time_base, duration
        return _with_times(self._stream.encode(frame))

    def flush(self) -> list[Packet]:
        """Return the remaining packets."""
        return _with_times(self._stream.encode(None))


def _with_times(packets: list[Packet]) -> list[Packet]:
    """Return packets with valid decoding times; x265 does not set them in clips of two frames."""
    for packet in packets:
        pts, dts = packet.pts, packet.dts
        if pts is None or dts is None or not 0 <= (pts - dts) * packet.time_base < _MAX_DELAY_S:
            packet.dts = pts
    return packets


class GIFTrack:
    """The images of an animated GIF, at most 50 per second.

    The comment is written before the first image. Times are in units of 1 / `ticks_per_s`.
    """

    def __init__(
        self,
        container: OutputContainer,
        width: int,
        height: int,
        fps: Fraction,
        ticks_per_s: int,
        comment: str = "",
    ) -> None:
        self._palette, self._ticks_per_s = _PaletteMapper(width, height), ticks_per_s
        self._next_ticks = 0
        self._comment = comment
        stream = container.add_stream("gif", rate=min(fps, Fraction(50)))
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        stream.codec_context.time_base = stream.time_base = Fraction(1, _GIF_TICKS_PER_S)
        self._stream = stream

    def encode(self, image: UInt8Array | PatchedImage, pts: int, duration: int) -> list[Packet]:
        """Return the packets that are ready after an image; times are in ticks of the track."""
        ticks = round(Fraction(pts * _GIF_TICKS_PER_S, self._ticks_per_s))
        if ticks < self._next_ticks:
            return []
        self._next_ticks = ticks + _MIN_GIF_TICKS
        array = image.to_array() if isinstance(image, PatchedImage) else image
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
        frame.pts, frame.time_base = ticks, Fraction(1, _GIF_TICKS_PER_S)
        return self._encode(self._palette.push(frame))

    def flush(self) -> list[Packet]:
        """Return the remaining packets."""
        return [*self._encode(self._palette.flush()), *self._stream.encode(None)]

    def _encode(self, frames: Iterable[AVFrame]) -> list[Packet]:
        packets = [packet for frame in frames for packet in self._stream.encode(frame)]
        if packets and self._comment:
            packets[0], self._comment = _with_comment(packets[0], self._comment), ""
        return packets


def _with_comment(packet: Packet, comment: str) -> Packet:
    """Return the first packet of a GIF with a comment, which FFmpeg's muxer does not write."""
    data, text = bytes(packet), comment.encode()
    # The header and the screen are followed by 2 to 256 colours of 3 bytes, if bit 7 is set.
    start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    blocks = [text[at : at + 255] for at in range(0, len(text), 255)]
    extension = b"".join([b"\x21\xfe", *(bytes([len(block)]) + block for block in blocks), b"\0"])
    changed = av.Packet(data[:start] + extension + data[start:])
    changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
    changed.time_base, changed.stream = packet.time_base, packet.stream
    changed.is_keyframe = packet.is_keyframe
    return changed


class _PaletteMapper:
    """A converter of RGB frames to frames with a palette of 256 colours.

    The palette is computed from the first two seconds, which are kept in memory until then.
    """

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._waiting: list[AVFrame] = []
        self._graph: Graph | None = None

    def push(self, frame: AVFrame) -> Iterator[AVFrame]:
        """Add a frame in the format rgb24 with its time, and yield the frames that are ready."""
        if self._graph is not None:
            yield from self._map(frame)
            return
        self._waiting.append(frame)
        if len(self._waiting) == _NUM_PALETTE_FRAMES:
            yield from self._start()

    def flush(self) -> Iterator[AVFrame]:
        """Yield the remaining frames at the end."""
        if self._graph is None and self._waiting:
            yield from self._start()

    def _start(self) -> Iterator[AVFrame]:
        palette = self._palette()
        time_base = self._waiting[0].time_base
        graph = Graph()
        frames = self._add_input(graph, time_base)
        colours = graph.add_buffer(
            width=16, height=16, format=av.VideoFormat("bgra"), time_base=time_base
        )
        use, sink = graph.add("paletteuse", _DITHER), graph.add("buffersink")
        frames.link_to(use, 0, 0)
        colours.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        palette.pts, palette.time_base = self._waiting[0].pts, time_base
        colours.push(palette)
        colours.push(None)
        self._graph, self._input, self._sink = graph, frames, sink
        for frame in self._waiting:
            yield from self._map(frame)
        self._waiting = []

    def _add_input(self, graph: Graph, time_base: Fraction | None) -> FilterContext:
        rgb = av.VideoFormat("rgb24")
        return graph.add_buffer(
            width=self._width, height=self._height, format=rgb, time_base=time_base
        )

    def _map(self, frame: AVFrame) -> Iterator[AVFrame]:
        self._input.push(frame)
        yield from _pull(self._sink)

    def _palette(self) -> AVFrame:
        """Return the palette of the waiting frames, in the format bgra, 16 x 16."""
        graph = Graph()
        time_base = Fraction(1, 25)
        source = self._add_input(graph, time_base)
        generate, sink = graph.add("palettegen", "reserve_transparent=0"), graph.add("buffersink")
        source.link_to(generate)
        generate.link_to(sink)
        graph.configure()
        for number, frame in enumerate(self._waiting):
            times = frame.pts, frame.time_base
            frame.pts, frame.time_base = number, time_base
            source.push(frame)
            frame.pts, frame.time_base = times
        source.push(None)
        return next(_pull(sink))


def _pull(sink: FilterContext) -> Iterator[AVFrame]:
    while True:
        try:
            frame = sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield frame  # type: ignore[misc]
