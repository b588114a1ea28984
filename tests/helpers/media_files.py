"""Media files for tests, written with PyAV."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

QUADRANTS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40))


def quadrants(height: int = 48, width: int = 64) -> np.ndarray:
    """Return an image with different quarters: top left, top right, bottom left, bottom right."""
    image = np.empty((height, width, 3), np.uint8)
    middle, centre = height // 2, width // 2
    image[:middle, :centre], image[:middle, centre:] = QUADRANTS[0], QUADRANTS[1]
    image[middle:, :centre], image[middle:, centre:] = QUADRANTS[2], QUADRANTS[3]
    return image


def corners(image: np.ndarray) -> list[int]:
    """Return the index in `QUADRANTS` of the colour in the middle of each quarter."""
    height, width = image.shape[:2]
    ys, xs = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    seen = [image[y, x].astype(int) for y in ys for x in xs]
    return [int(np.argmin([np.abs(colour - q).sum() for q in QUADRANTS])) for colour in seen]


def tone(seconds: float, sample_rate: int, frequency: float = 440.0) -> np.ndarray:
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def write_media(
    path: Path,
    images: list[np.ndarray] | None = None,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: Fraction = Fraction(25),
    times_ms: list[int] | None = None,
    options: dict[str, str] | None = None,
    colour: tuple[int, int] | None = None,
    aspect: Fraction | None = None,
    sound: np.ndarray | None = None,
    sample_rate: int = 16_000,
    sound_codec: str = "aac",
    sound_format: str = "fltp",
    layout: str = "mono",
    sound_start_ms: int = 0,
    video_start_ms: int = 0,
) -> Path:
    """Write images (uint8 RGB or RGBA) and audio (float32 [channels, samples]) with these codecs.

    `colour` is (matrix, range) in FFmpeg's numbering, for the conversion and the tag.
    """
    with av.open(str(path), "w") as container:
        video = audio = None
        if images is not None:
            video = container.add_stream(codec, rate=fps, options=options or {})
            video.width, video.height = images[0].shape[1], images[0].shape[0]
            video.pix_fmt = pix_fmt
            video.codec_context.time_base = Fraction(1, 1000) if times_ms else 1 / fps
            if colour:
                video.codec_context.colorspace, video.codec_context.color_range = colour
            if aspect:
                video.codec_context.sample_aspect_ratio = aspect
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=sample_rate, layout=layout)
            audio.codec_context.format = sound_format
            _write_sound(container, audio, sound, sample_rate, layout, sound_format, sound_start_ms)
        for index, image in enumerate(images or []):
            frame = av.VideoFrame.from_ndarray(image, "rgba" if image.shape[2] == 4 else "rgb24")
            if colour:
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace=colour[0], dst_color_range=colour[1]
                )
            if times_ms:
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            else:
                frame.pts, frame.time_base = index + round(video_start_ms * fps / 1000), 1 / fps
            container.mux(video.encode(frame))
        for stream in filter(None, (video, audio)):
            container.mux(stream.encode(None))
    return path


def _write_sound(container, stream, sound, sample_rate, layout, sound_format, start_ms):
    packed = not sound_format.endswith("p")
    samples = np.atleast_2d(sound)
    if sound_format.startswith("s16"):
        samples = np.round(samples * 32767).astype(np.int16)
    elif sound_format.startswith("u8"):
        samples = np.round(samples * 127 + 128).astype(np.uint8)
    elif sound_format.startswith("s32"):
        samples = np.round(samples.astype(np.float64) * (2**31 - 1)).astype(np.int32)
    elif sound_format.startswith("dbl"):
        samples = samples.astype(np.float64)
    data = np.ascontiguousarray(samples.T.reshape(1, -1) if packed else samples)
    frame = av.AudioFrame.from_ndarray(data, format=sound_format, layout=layout)
    frame.sample_rate = sample_rate
    frame.pts = round(start_ms * sample_rate / 1000)
    frame.time_base = Fraction(1, sample_rate)
    container.mux(stream.encode(frame))


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a, b, c and d into the display matrix of the first video track of an MP4."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    # The matrix follows the 40 bytes of the other fields of the track header.
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def smooth(height: int, width: int, phase: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(6 * x + phase), np.cos(5 * y), np.sin(4 * (x + y) - phase)]
    return np.stack([128 + 90 * wave for wave in waves], -1).astype(np.uint8)


def leftovers(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
