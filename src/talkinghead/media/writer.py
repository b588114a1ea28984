"""Atomic writing of media files: videos and image sequences as a stream."""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import av
import numpy as np

from talkinghead.errors import MediaError
from talkinghead.media.atomic_file import DISK_ERRORS, atomic_path, unwritable
from talkinghead.media.container import reason
from talkinghead.media.decoding.tone_mapping import HDRFormat
from talkinghead.media.encoding.audio_track import EncodedTrack
from talkinghead.media.encoding.frame_conversion import FrameConverter, HDRFrameConverter
from talkinghead.media.encoding.image_sequence import ImageSequenceWriter, write_image
from talkinghead.media.encoding.output_formats import output_format
from talkinghead.media.encoding.patched_image import PatchedImage
from talkinghead.media.encoding.stream_copy import CopiedStreams, KeptContent, StreamCopier
from talkinghead.media.encoding.video_encoder import (
    MAX_CRF,
    VideoEncoder,
    choose_encoder,
    hdr_encoder,
)
from talkinghead.media.encoding.video_track import GIFTrack, YUVTrack
from talkinghead.media.image import ColourTags
from talkinghead.media.timing import round_half_up
from talkinghead.types import EncodeOptions, FloatArray, UInt8Array

if TYPE_CHECKING:
    from av.packet import Packet

log = logging.getLogger(__name__)

# errno codes of errors that concern the file; others come from an encoder or the container.
_FILE_ERRORS = DISK_ERRORS | {errno.EACCES, errno.ENOENT}

__all__ = ["OutputWriter", "VideoWriter", "open_writer", "write_image"]


class VideoWriter:
    """Context manager that writes a video file; the suffix of its name selects the container.

    MP4 and MOV (H.264 and AAC, with the index first), Matroska (the same codecs), WebM (VP9 and
    Opus), and GIF. On exit the file is put in place; on any exception, KeyboardInterrupt included,
    no file is left. Audio and video may be written in any order and in chunks of any size; both
    start at time 0 and are interleaved.

    Args:
        path: the file; its folder is created when missing.
        width: width of the images in pixels. With pix_fmt yuv420p, an odd width or height is
            increased by 1, by repetition of the last column or row.
        height: height of the images in pixels.
        fps: frames per second; frame n is shown at n / fps unless `write` gets a time.
        sample_rate: audio sample rate in Hz, or None for no audio. Rates that the codec does not
            support are resampled to 48 kHz.
        layout: FFmpeg's name of the channel layout of the audio.
        crf: see `EncodeOptions`.
        preset: see `EncodeOptions`.
        pix_fmt: see `EncodeOptions`.
        encoder: see `EncodeOptions`.
        metadata: tags (title, artist, comment, ...); tags that the container does not support are
            written into the comment as `key=value`.
        colour: colour conversion and tags; limited BT.709 by default.
        hdr: format of HDR output with 10 bits, as HEVC or, in WebM, AV1, in place of `pix_fmt`,
            `encoder` and `colour`; ignored by GIF.
        seal: called with the finished temporary file and the target path before the file is put in
            place, for example to sign it.
        audio: audio of a file that is copied without encoding, in place of `write_audio`.
        kept: further content of another video.

    Raises:
        UsageError: the suffix selects no format, or the encoder or preset is unknown.
        MediaError: bad size, rate or crf; on entering, the file cannot be written.

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
        layout: str = "mono",
        crf: int = EncodeOptions.crf,
        preset: str = EncodeOptions.preset,
        pix_fmt: str = EncodeOptions.pix_fmt,
        encoder: str = EncodeOptions.encoder,
        metadata: Mapping[str, str] | None = None,
        colour: ColourTags | None = None,
        hdr: HDRFormat | None = None,
        seal: Callable[[Path, Path], None] | None = None,
        audio: CopiedStreams | None = None,
        kept: KeptContent | None = None,
    ) -> None:
        self.path, self.width, self.height = Path(path), int(width), int(height)
        self.fps, self.sample_rate, self.layout = Fraction(fps), sample_rate, layout
        is_bad_rate = self.fps <= 0 or (sample_rate is not None and sample_rate <= 0)
        if min(self.width, self.height) < 2 or is_bad_rate:
            raise MediaError(
                f"{path}: cannot write {width} x {height} pixels at {fps} frames/s, "
                f"audio at {sample_rate} Hz; sizes must be at least 2, rates positive"
            )
        if not 0 <= crf <= MAX_CRF:
            raise MediaError(f"{path}: crf is {crf}; it must be from 0 (lossless) to {MAX_CRF}")
        self._output = output_format(path)
        self._colour = colour or ColourTags()
        self._convert = FrameConverter(self.width, self.height, pix_fmt, self._colour)
        self._encoder = None
        if hdr is not None and self._output.video_codec != "gif":
            self._use_hdr(hdr, hdr_encoder(self._output, crf, preset, hdr))
        elif self._output.video_codec != "gif":
            size = self.width * self.height
            self._encoder = choose_encoder(self._output, encoder, crf, preset, num_pixels=size)
        self._copied_audio, self._kept = audio, kept or KeptContent()
        tags = {**self._kept.metadata, **(metadata or {})}
        self._metadata = self._output.supported_tags(tags)
        self._seal = seal
        self._stack = ExitStack()
        # Time base in which frames at the constant rate have integer timestamps. Other times are
        # rounded by less than 11 microseconds.
        self._ticks_per_s = self.fps.numerator * max(1, -(-90_000 // self.fps.numerator))
        self._step = int(self._ticks_per_s / self.fps)
        self._next_pts = 0
        self._audio_packets: deque[Packet] = deque()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(self.path))
            with self._reported():
                file, muxer = f"file:{self._temporary}", self._output.muxer
                self._container = av.open(file, "w", format=muxer, options=self._muxer_options())
                stack.callback(self._close_quietly)
                self._container.metadata.update(self._metadata)
                self._video = self._add_video()
                self._audio = self._add_audio()
                self._copiers = list(self._add_copiers(stack))
                if self._kept.chapters:
                    self._container.set_chapters(list(self._kept.chapters))
                self._container.start_encoding()
            self._stack = stack.pop_all()
        self._log_changes()
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

    def write(self, image: UInt8Array | PatchedImage, time_s: Fraction | None = None) -> None:
        """Append a frame.

        Args:
            image: uint8 [height, width, 3] RGB, or a patched image of this size.
            time_s: presentation time; one frame after the previous one if None.

        Raises:
            MediaError: wrong shape or type, a time that does not rise, or a full disk.
        """
        pixels = image.base if isinstance(image, PatchedImage) else image
        dtype = pixels.dtype if isinstance(pixels, np.ndarray) else np.dtype(np.uint8)
        if pixels.shape != (self.height, self.width, 3) or dtype != np.uint8:
            raise MediaError(
                f"{self.path}: got an image of {dtype} {pixels.shape}, "
                f"needs uint8 ({self.height}, {self.width}, 3)"
            )
        pts = self._next_pts
        if time_s is not None:
            pts = round_half_up(Fraction(time_s) * self._ticks_per_s)
        if pts <= self._next_pts - self._step or pts < 0:
            raise MediaError(
                f"{self.path}: got a frame for {time_s} s, which is not after the previous one"
            )
        self._next_pts = pts + self._step
        with self._reported():
            self._mux_video(self._video.encode(image, pts, self._step))

    def write_audio(self, samples: FloatArray) -> None:
        """Append audio; values outside [-1, 1] are clipped. A GIF ignores audio.

        Args:
            samples: float32 [num_samples] for mono, or [channels, num_samples].

        Raises:
            MediaError: the writer has no sample rate, the samples are not finite numbers or have
                another shape, or the disk is full.
        """
        if not self._output.has_audio and self.sample_rate:
            return
        if self._audio is None:
            raise MediaError(
                f"{self.path}: got audio, but no sample rate was given; give a sample rate"
            )
        channels = samples[None] if samples.ndim == 1 else samples
        num_channels = av.AudioLayout(self.layout).nb_channels
        is_fitting = channels.ndim == 2 and len(channels) == num_channels
        if not is_fitting or not np.isfinite(channels).all():
            rows = "one row" if num_channels == 1 else f"{num_channels} rows"
            raise MediaError(
                f"{self.path}: got audio of shape {samples.shape}, needs {rows} of finite samples"
            )
        if channels.shape[1]:
            with self._reported():
                self._audio_packets.extend(self._audio.encode(np.clip(channels, -1, 1)))

    def _use_hdr(self, hdr: HDRFormat, encoder: VideoEncoder) -> None:
        self._convert = HDRFrameConverter(self.width, self.height, hdr)
        self._colour, self._encoder = self._convert.colour, encoder
        log.info("%s: HDR is encoded with 10 bits by %s", self.path, encoder.name)

    def _muxer_options(self) -> dict[str, str]:
        if self._output.muxer not in {"mp4", "mov"}:
            return {}
        # By default, the durations of reordered frames are rounded to milliseconds.
        return {"movflags": "+faststart", "movie_timescale": str(self._ticks_per_s)}

    def _add_video(self) -> YUVTrack | GIFTrack:
        container, ticks_per_s = self._container, self._ticks_per_s
        if self._encoder is None:
            size, comment = (self.width, self.height), self._metadata.get("comment", "")
            return GIFTrack(container, *size, self.fps, ticks_per_s, comment)
        return YUVTrack(
            container, self._encoder, self._convert, self.fps, ticks_per_s, self._colour
        )

    @property
    def _encodes_audio(self) -> bool:
        return self._output.has_audio and bool(self.sample_rate) and self._copied_audio is None

    def _add_audio(self) -> EncodedTrack | None:
        codec, rate = self._output.audio_codec, self.sample_rate
        if codec is None or rate is None or not self._encodes_audio:
            return None
        return EncodedTrack(self._container, codec, rate, self.layout)

    def _add_copiers(self, stack: ExitStack) -> Iterator[StreamCopier]:
        """Add the copied streams to the container: the audio first, as players choose the first."""
        for copied in (self._copied_audio, self._kept.streams):
            if copied is not None and self._output.has_audio:
                copier = StreamCopier(self._container, copied)
                stack.callback(copier.close)
                yield copier

    def _log_changes(self) -> None:
        width, height = self._convert.width, self._convert.height
        if self._encoder is not None and (width, height) != (self.width, self.height):
            log.info(
                "%s: %d x %d pixels are written as %d x %d, as most players need even sizes; "
                "pix_fmt=yuv444p keeps the size",
                *(self.path, self.width, self.height, width, height),
            )
        if not self._output.has_audio and self.sample_rate:
            log.info("%s: a GIF has no audio", self.path)

    def _mux_video(self, packets: list[Packet]) -> None:
        for packet in packets:
            time_s = _decode_time_s(packet)
            # Encoded audio is queued until the video reaches its time, as players need interleaved
            # audio and video.
            while self._audio_packets and _decode_time_s(self._audio_packets[0]) <= time_s:
                self._container.mux_one(self._audio_packets.popleft())
            for copier in self._copiers:
                for copied in copier.packets_until(time_s):
                    self._container.mux_one(copied)
            self._container.mux_one(packet)

    def _finish(self) -> None:
        if not self._next_pts:
            raise MediaError(f"{self.path}: no frame was written; give at least one")
        with self._reported():
            self._mux_video(self._video.flush())
            if self._audio is not None:
                self._audio_packets.extend(self._audio.flush())
            for packet in self._audio_packets:
                self._container.mux_one(packet)
            for copier in self._copiers:
                for packet in copier.packets_until(Fraction(self._next_pts, self._ticks_per_s)):
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
            if error.errno in _FILE_ERRORS:
                raise unwritable(self.path, error) from error
            raise self._unencodable(error) from error

    def _unencodable(self, error: Exception) -> MediaError:
        """Return the error for an encoder or a container that fails."""
        names = [self._encoder.name if self._encoder else self._output.video_codec]
        if self._encodes_audio:
            names.append(str(self._output.audio_codec))
        is_hardware = self._encoder is not None and self._encoder.is_hardware
        advice = "encoder=software" if is_hardware else "a smaller size or another format"
        return MediaError(
            f"{self.path}: cannot be encoded by {' and '.join(names)} at {self.width} x "
            f"{self.height} pixels ({reason(error)}); choose {advice}"
        )


OutputWriter: TypeAlias = VideoWriter | ImageSequenceWriter
"""A writer of a video or of an image sequence."""


def open_writer(
    path: Path | str,
    width: int,
    height: int,
    fps: Fraction,
    sample_rate: int | None,
    **options: Any,
) -> OutputWriter:
    """Return a writer for a video or, if the name contains a number, for an image sequence.

    The arguments are those of `VideoWriter`; of the options, an image sequence has only the
    metadata, which are written into the comment of each image.

    Raises:
        UsageError: the suffix selects no format, or the encoder or preset is unknown.
    """
    if output_format(path).video_codec == "image":
        return ImageSequenceWriter(path, width, height, options.get("metadata"))
    return VideoWriter(path, width, height, fps, sample_rate, **options)


def _decode_time_s(packet: Packet) -> Fraction:
    return (packet.dts or 0) * packet.time_base
