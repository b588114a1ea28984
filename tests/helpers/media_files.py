"""Media files for tests, written with PyAV."""

from __future__ import annotations

import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scipy.io import wavfile

from talkinghead.media.audio_decoding import audio_frame, read_audio
from talkinghead.media.reader import read_image
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.paths import DEMO_SPEECH, demo_face
from talkinghead.types import AudioClip

QUADRANTS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40))
"""Colours of the quadrants: top left, top right, bottom left, bottom right."""


def quadrants(height: int = 48, width: int = 64) -> np.ndarray:
    """Return an image whose four quadrants have the colours of `QUADRANTS`."""
    image = np.empty((height, width, 3), np.uint8)
    y, x = height // 2, width // 2
    image[:y, :x], image[:y, x:], image[y:, :x], image[y:, x:] = QUADRANTS
    return image


def quadrant_centres(image: np.ndarray) -> np.ndarray:
    """Return the colours in the centres of the quadrants of an image, int [4, 3]."""
    height, width = image.shape[:2]
    ys, xs = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return np.array([image[y, x] for y in ys for x in xs], int)


def smooth(height: int, width: int, phase: float = 0.0) -> np.ndarray:
    """Return an image with smooth colour gradients."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(6 * x + phase), np.cos(5 * y), np.sin(4 * (x + y) - phase)]
    return np.stack([128 + 90 * wave for wave in waves], -1).astype(np.uint8)


def tone(duration_s: float, sample_rate: int) -> np.ndarray:
    """Return a sine tone of 440 Hz, float32 [num_samples]."""
    times = np.arange(round(duration_s * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)


def file_names(folder: Path) -> list[str]:
    """Return the names of the files in a folder, including hidden files."""
    return sorted(path.name for path in folder.iterdir())


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
    aspect: Fraction = Fraction(1),
    audio: np.ndarray | None = None,
    sample_rate: int = 16_000,
    audio_codec: str = "aac",
    audio_format: str = "fltp",
    layout: str = "mono",
    audio_start_ms: int = 0,
) -> Path:
    """Write a file with images (uint8 RGB or RGBA) and audio, float32 [channels, samples].

    `colour` is the pair (matrix, range), as numbers of FFmpeg, for the conversion and the tags."""
    with av.open(str(path), "w") as container:
        if images is not None:
            video = container.add_stream(codec, rate=fps, options=options or {})
            video.width, video.height = images[0].shape[1], images[0].shape[0]
            video.pix_fmt = pix_fmt
            video.codec_context.time_base = unit = Fraction(1, 1000) if times_ms else 1 / fps
            if colour:
                video.codec_context.colorspace, video.codec_context.color_range = colour
            video.codec_context.sample_aspect_ratio = aspect
        if audio is not None:
            stream = container.add_stream(audio_codec, rate=sample_rate, layout=layout)
            stream.codec_context.format = audio_format
            frame = audio_frame(np.atleast_2d(audio), sample_rate, layout)
            frame.time_base = Fraction(1, sample_rate)
            frame.pts = round(audio_start_ms * sample_rate / 1000)
            container.mux(stream.encode(frame))
        for index, image in enumerate(images or []):
            frame = av.VideoFrame.from_ndarray(image, "rgba" if image.shape[2] == 4 else "rgb24")
            if colour:
                tags = {"dst_colorspace": colour[0], "dst_color_range": colour[1]}
                frame = frame.reformat(format=pix_fmt, **tags)
            frame.pts, frame.time_base = times_ms[index] if times_ms else index, unit
            container.mux(video.encode(frame))
        for stream in container.streams:
            container.mux(stream.encode(None))
    return path


def write_wav(path: Path, clip: AudioClip) -> None:
    """Write a 16-bit mono WAV file."""
    pcm = np.clip(np.rint(clip.samples * 32_768.0), -32_768, 32_767).astype(np.int16)
    wavfile.write(path, clip.sample_rate, pcm)


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Set the values a, b, c and d of the display matrix of the first video track of an MP4."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    # The matrix is 40 bytes after the name of the track header.
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def write_sample_media(folder: Path, speech_s: float) -> None:
    """Write photo.jpg, speech.wav, video.mp4, and a folder videos with clips of two speakers."""
    photo, speech = read_image(demo_face()), read_audio(DEMO_SPEECH, 16_000)
    rate = speech.sample_rate
    write_image(folder / "photo.jpg", photo)
    start = rate // 2
    samples = speech.samples[start : start + round(speech_s * rate)]
    write_wav(folder / "speech.wav", AudioClip(samples, rate))
    for number, name in enumerate(("anna/0.mp4", "anna/1.mp4", "ben/0.mp4")):
        path = folder / "videos" / name
        with VideoWriter(path, 400, 400, Fraction(25), rate) as writer:
            writer.write_audio(speech.samples[6400 : 6400 + 2 * rate])
            for frame in range(50):
                shift = abs((frame + 3 * number) % 20 - 10)
                writer.write(np.ascontiguousarray(photo[:400, shift : shift + 400]))
    shutil.copy(folder / "videos/anna/0.mp4", folder / "video.mp4")
