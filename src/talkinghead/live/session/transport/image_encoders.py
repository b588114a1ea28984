"""Encoders of the images of a WebSocket stream: JPEG files, or H.264 access units."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import NamedTuple, Protocol

import av
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from talkinghead.errors import UsageError
from talkinghead.media.image import BT709
from talkinghead.media.timing import round_half_up
from talkinghead.types import UInt8Array

# Maximum time between two keyframes, from which a decoder can start.
_KEYFRAME_INTERVAL_S = 2
_TIME_BASE = Fraction(1, 90_000)
_X264_OPTIONS = {"preset": "veryfast", "tune": "zerolatency"}


class EncodedImage(NamedTuple):
    """An encoded image, and whether it can be decoded without the images before it."""

    data: bytes
    is_keyframe: bool


class ImageEncoder(Protocol):
    """Protocol of an encoder of consecutive images."""

    def encode(self, image: UInt8Array, time_s: Fraction) -> EncodedImage:
        """Encode an image, uint8 [H, W, 3] RGB, without delay."""


class JpegEncoder:
    """An encoder that writes each image as a JPEG file.

    Args:
        quality: 1 (smallest files) to 100.
    """

    def __init__(self, quality: int) -> None:
        self._quality = quality

    def encode(self, image: UInt8Array, time_s: Fraction) -> EncodedImage:
        """Encode an image."""
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=self._quality)
        return EncodedImage(file.getvalue(), is_keyframe=True)


class H264Encoder:
    """An encoder that writes each image as an H.264 access unit (Annex B).

    The stream has no reordered frames. Each keyframe is an IDR picture with its parameter sets. Odd
    sizes lose one row or column.

    Args:
        width: Width of the images in pixels.
        height: Height of the images in pixels.
        fps: Nominal frame rate.
        quality: 1 (lowest bitrate) to 100; 80 is the constant rate factor 23 of x264.
    """

    def __init__(self, width: int, height: int, fps: Fraction, quality: int) -> None:
        self._width, self._height = width // 2 * 2, height // 2 * 2
        codec = av.CodecContext.create("libx264", "w")
        assert isinstance(codec, VideoCodecContext)
        codec.width, codec.height, codec.pix_fmt = self._width, self._height, "yuv420p"
        codec.framerate, codec.time_base = fps, _TIME_BASE
        codec.gop_size = round(_KEYFRAME_INTERVAL_S * fps)
        codec.colorspace, codec.color_range = BT709.matrix, BT709.range
        codec.color_primaries, codec.color_trc = BT709.primaries, BT709.transfer
        codec.thread_count = 1
        codec.options = {**_X264_OPTIONS, "crf": str(round(51 - 0.35 * quality))}
        self._codec = codec

    def encode(self, image: UInt8Array, time_s: Fraction) -> EncodedImage:
        """Encode an image; times increase."""
        frame = av.VideoFrame.from_ndarray(image[: self._height, : self._width], format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=BT709.matrix, dst_color_range=BT709.range
        )
        frame.pts, frame.time_base = round_half_up(time_s / _TIME_BASE), _TIME_BASE
        (packet,) = self._codec.encode(frame)
        return EncodedImage(bytes(packet), packet.is_keyframe)


def image_encoder(
    name: str, width: int, height: int, fps: Fraction, quality: int
) -> ImageEncoder | None:
    """Return the encoder "jpeg" or "h264"; None for "none".

    Raises:
        UsageError: The name is unknown.
    """
    match name:
        case "jpeg":
            return JpegEncoder(quality)
        case "h264":
            return H264Encoder(width, height, fps, quality)
        case "none":
            return None
    raise UsageError(f"image={name!r}: choose jpeg, h264 or none")
