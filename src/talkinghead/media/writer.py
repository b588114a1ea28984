"""Atomic writing of media files: MP4 (H.264 and AAC) as a stream, PNG and JPEG."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from talkinghead.errors import MediaError, UsageError
from talkinghead.media.atomic_file import atomic_path, unwritable
from talkinghead.media.audio_decoding import mono_frame
from talkinghead.media.image import ColourTags
from talkinghead.media.timing import round_half_up
from talkinghead.types import EncodeOptions, FloatArray, UInt8Array

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["VideoWriter", "atomic_path", "write_image"]

_AAC_RATES = {
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
    *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
}
_FALLBACK_RATE = 48_000
_MP4_SUFFIXES = (".mp4", ".m4v", "")
# Tags that MP4 supports. MP4 drops all other tags silently, so those are written into the comment.
_MP4_KEYS = {
    *("title", "artist", "album_artist", "composer", "album", "date", "comment", "genre"),
    *("copyright", "grouping", "description", "synopsis", "show", "lyrics", "keywords"),
    "encoding_tool",
}
# Without ACCURATE_RND, swscale rounds down, which darkens images by up to one level.
_UNBIASED = Interpolation.BILINEAR | Interpolation.ACCURATE_RND


class VideoWriter:
    """Context manager that writes an MP4 file (H.264 and AAC, with the index first).

    On exit the file is put in place; on any exception, KeyboardInterrupt included, no file is left.
    Audio and video may be written in any order and in chunks of any size; both start at time 0 and
    are interleaved.

    Even sizes are written as yuv420p, which plays everywhere. Odd sizes need yuv444p ("High
    4:4:4"), which FFmpeg, VLC and Chrome play, but hardware decoders and QuickTime do not.

    Args:
        path: the file; its folder is created when missing.
        width: width in pixels.
        height: height in pixels.
        fps: frames per second; frame n is shown at n / fps unless `write` gets a time.
        sample_rate: audio sample rate in Hz, or None for no audio. Rates that AAC does not support
            are resampled to 48 kHz.
        crf: see `EncodeOptions`.
        preset: see `EncodeOptions`.
        metadata: tags (title, artist, comment, ...); tags that MP4 does not support are written
            into the comment as `key=value`.
        colour: colour conversion and tags; limited BT.709 by default.
        seal: called with the finished temporary file and the target path before the file is put in
            place, for example to sign it.

    Raises:
        UsageError: the file name has a suffix other than .mp4 and .m4v.
        MediaError: bad size, rate, crf or preset; on entering, the file cannot be written.

    Example:
        >>> with VideoWriter("out.mp4", 512, 512, Fraction(25), 16_000) as writer:
        ...     writer.write(image)
        ...     writer.write_audio(samples)
    """

    def __init__(
        self,
        path: Path | str,
        width: int,
        height: int,
        fps: Fraction,
        sample_rate: int | None,
        *,
        crf: int = EncodeOptions.crf,
        preset: str = EncodeOptions.preset,
        metadata: Mapping[str, str] | None = None,
        colour: ColourTags | None = None,
        seal: Callable[[Path, Path], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.width, self.height = int(width), int(height)
        self.fps, self.sample_rate = Fraction(fps), sample_rate
        is_bad_rate = self.fps <= 0 or (sample_rate is not None and sample_rate <= 0)
        if min(self.width, self.height) < 2 or is_bad_rate:
            raise MediaError(
                f"{path}: cannot write {width} x {height} pixels at {fps} frames/s, "
                f"audio at {sample_rate} Hz; sizes must be at least 2, rates positive"
            )
        if self.path.suffix.lower() not in _MP4_SUFFIXES:
            raise UsageError(
                f"{path}: only MP4 can be written: give a name that ends in .mp4 or .m4v"
            )
        if not 0 <= crf <= 51:
            raise MediaError(f"{path}: crf is {crf}; it must be from 0 (lossless) to 51")
        self._options = {"crf": str(crf), "preset": preset}
        self._metadata = _mp4_metadata(metadata or {})
        self._colour = colour or ColourTags()
        self._seal = seal
        self._stack = ExitStack()
        self._reformatter = VideoReformatter()
        # Time base in which frames at the constant rate have integer timestamps. Other times are
        # rounded by less than 11 microseconds.
        self._ticks_per_s = self.fps.numerator * max(1, -(-90_000 // self.fps.numerator))
        self._step = int(self._ticks_per_s / self.fps)
        self._next_pts = 0
        self._num_samples = 0
        self._audio_packets: deque[Packet] = deque()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(self.path))
            with self._reported():
                # By default, the durations of reordered frames are rounded to milliseconds.
                unit = {"movie_timescale": str(self._ticks_per_s)}
                options = {"movflags": "+faststart", **unit}
                file = f"file:{self._temporary}"
                self._container = av.open(file, "w", format="mp4", options=options)
                stack.callback(self._close_quietly)
                self._container.metadata.update(self._metadata)
                self._video = self._add_video()
                self._audio = self._add_audio() if self.sample_rate else None
                self._container.start_encoding()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            with self._stack:
                self._finish()
        else:
            self._stack.__exit__(kind, error, trace)

    def write(self, image: UInt8Array, time_s: Fraction | None = None) -> None:
        """Append a frame.

        Args:
            image: uint8 [height, width, 3] RGB.
            time_s: presentation time; one frame after the previous one if None.

        Raises:
            MediaError: wrong shape or type, a time that does not rise, or a full disk.
        """
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise MediaError(
                f"{self.path}: got an image of {image.dtype} {image.shape}, "
                f"needs uint8 ({self.height}, {self.width}, 3)"
            )
        pts = self._next_pts
        if time_s is not None:
            pts = round_half_up(Fraction(time_s) * self._ticks_per_s)
        if pts <= self._next_pts - self._step or pts < 0:
            raise MediaError(
                f"{self.path}: got a frame for {time_s} s, which is not after the previous one"
            )
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"),
            format=self._video.codec_context.pix_fmt,
            dst_colorspace=self._colour.matrix,
            dst_color_range=self._colour.range,
            interpolation=_UNBIASED,
            threads=1,
        )
        frame.pts, frame.time_base, frame.duration = pts, Fraction(1, self._ticks_per_s), self._step
        self._next_pts = pts + self._step
        with self._reported():
            self._mux_video(self._video.encode(frame))

    def write_audio(self, samples: FloatArray) -> None:
        """Append mono audio, float32 [num_samples]; values outside [-1, 1] are clipped.

        Raises:
            MediaError: the writer has no sample rate, the samples are not one row of finite
                numbers, or the disk is full.
        """
        if self._audio is None:
            raise MediaError(
                f"{self.path}: got audio, but no sample rate was given; give a sample rate"
            )
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise MediaError(
                f"{self.path}: got audio of shape {samples.shape}, needs one row of finite samples"
            )
        if not len(samples):
            return
        frame = mono_frame(np.clip(samples, -1, 1), self.sample_rate or 0)
        frame.pts, frame.time_base = self._num_samples, Fraction(1, self.sample_rate or 1)
        self._num_samples += len(samples)
        with self._reported():
            self._audio_packets.extend(self._audio.encode(frame))

    def _add_video(self) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=self.fps, options=self._options)
        context = stream.codec_context
        stream.width, stream.height = self.width, self.height
        stream.pix_fmt = "yuv444p" if self.width % 2 or self.height % 2 else "yuv420p"
        context.time_base = stream.time_base = Fraction(1, self._ticks_per_s)
        context.colorspace, context.color_range = self._colour.matrix, self._colour.range
        context.color_primaries = self._colour.primaries
        context.color_trc = self._colour.transfer
        return stream

    def _add_audio(self) -> AudioStream:
        rate = self.sample_rate if self.sample_rate in _AAC_RATES else _FALLBACK_RATE
        # The default AAC coder takes twice as long and gives no better quality.
        options = {"aac_coder": "fast"}
        stream = self._container.add_stream("aac", rate=rate, layout="mono", options=options)
        # The limit of AAC is 6144 bits per frame of 1024 samples, that is 6 bits per sample. At low
        # sample rates this is less than 128 kbit/s.
        stream.codec_context.bit_rate = min(128_000, 6 * rate)
        return stream

    def _mux_video(self, packets: list[Packet]) -> None:
        for packet in packets:
            time_s = _decode_time_s(packet)
            # Encoded audio is queued until the video reaches its time, as players need interleaved
            # audio and video.
            while self._audio_packets and _decode_time_s(self._audio_packets[0]) <= time_s:
                self._container.mux_one(self._audio_packets.popleft())
            self._container.mux_one(packet)

    def _finish(self) -> None:
        if not self._next_pts:
            raise MediaError(f"{self.path}: no frame was written; give at least one")
        with self._reported():
            self._mux_video(self._video.encode(None))
            if self._audio is not None and self._num_samples:
                self._audio_packets.extend(self._audio.encode(None))
            for packet in self._audio_packets:
                self._container.mux_one(packet)
            self._container.close()
        if self._seal:
            self._seal(self._temporary, self.path)

    def _close_quietly(self) -> None:
        with suppress(av.FFmpegError, OSError):
            self._container.close()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise unwritable(self.path, error) from error


def write_image(path: Path | str, image: UInt8Array) -> None:
    """Write a PNG or a high-quality JPEG file.

    Args:
        path: ends in .png, .jpg or .jpeg, which selects the format.
        image: uint8 [height, width, 3] RGB.

    Raises:
        MediaError: another suffix, shape or type, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in {".png", ".jpg", ".jpeg"}:
        raise MediaError(f"{path}: images are written as .png or .jpg; change the file name")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise MediaError(
            f"{path}: got an image of {image.dtype} {image.shape}, needs uint8 (height, width, 3)"
        )
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    encoder = av.CodecContext.create("png" if suffix == ".png" else "mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb24"
    encoder.time_base = Fraction(1, 25)
    if suffix != ".png":
        encoder.pix_fmt, encoder.color_range = "yuvj444p", ColorRange.JPEG
        encoder.qmin = encoder.qmax = 2
        frame = frame.reformat(
            format="yuvj444p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            interpolation=_UNBIASED,
        )
    frame.pts = 0
    data = b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _decode_time_s(packet: Packet) -> Fraction:
    return (packet.dts or 0) * packet.time_base


def _mp4_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    known = {key: str(value) for key, value in metadata.items() if key in _MP4_KEYS}
    others = [f"{key}={value}" for key, value in metadata.items() if key not in _MP4_KEYS]
    if others:
        known["comment"] = "; ".join([*filter(None, [known.get("comment")]), *others])
    return known
