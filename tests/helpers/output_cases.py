"""Inputs of all kinds, and what must be found in the outputs made from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from helpers.media_files import set_display_matrix, smooth, tone, write_media

DURATION_S = 0.8
NTSC, FILM = Fraction(30_000, 1001), Fraction(24_000, 1001)


def photo(suffix: str, height: int = 160, width: int = 192, mode: str = "RGB", **options: Any):
    """Return a function that writes a photo."""

    def write(folder: Path) -> Path:
        path = folder / f"face.{suffix}"
        Image.fromarray(smooth(height, width)).convert(mode).save(path, **options)
        return path

    return write


def rotated_photo(folder: Path) -> Path:
    """Write a photo that EXIF turns by 90 degrees."""
    exif = Image.Exif()
    exif[0x112] = 6
    return photo("jpg", exif=exif)(folder)


def video(suffix: str, count: int = 20, height: int = 160, width: int = 192, **options: Any):
    """Return a function that writes a video."""

    def write(folder: Path) -> Path:
        images = [smooth(height, width, number / count) for number in range(count)]
        return write_media(folder / f"face.{suffix}", images, **options)

    return write


def rotated_video(folder: Path) -> Path:
    """Write a video whose display matrix turns it by 90 degrees."""
    path = video("mp4")(folder)
    set_display_matrix(path, (0, 1, -1, 0))
    return path


def audio(suffix: str, codec: str, sample_format: str, rate: int, layout: str = "mono"):
    """Return a function that writes speech."""

    def write(folder: Path) -> Path:
        num_channels = av.AudioLayout(layout).nb_channels
        return write_media(
            folder / f"speech.{suffix}",
            audio=np.stack([tone(DURATION_S, rate)] * num_channels),
            audio_codec=codec,
            audio_format=sample_format,
            sample_rate=rate,
            layout=layout,
        )

    return write


WAV = audio("wav", "pcm_s16le", "s16", 16_000)


@dataclass(frozen=True)
class OutputCase:
    """An input, the suffix of the output, and what differs from `EXPECTED` in the output."""

    face: Callable[[Path], Path]
    speech: Callable[[Path], Path] = WAV
    suffix: str = "mp4"
    expected: dict[str, Any] = field(default_factory=dict)


EXPECTED = {
    "size": (192, 160),
    "fps": Fraction(25),
    "video": "h264",
    "profile": "High",
    "pix_fmt": "yuv420p",
    "colour": (1, 1, 1, 1),
    "audio": "aac",
    "channels": 1,
    "rate": 16_000,
}
# Matrix, range, primaries and transfer of untagged small videos.
_UNTAGGED = (5, 1, 2, 2)


def _video_case(write: Callable[[Path], Path], **expected: Any) -> OutputCase:
    return OutputCase(write, expected={"colour": _UNTAGGED, **expected})


def _speech_case(write: Callable[[Path], Path], suffix: str = "mp4", **expected: Any) -> OutputCase:
    return OutputCase(photo("png"), write, suffix, expected)


_VP9 = {"video": "vp9", "profile": "Profile 0", "audio": "opus", "rate": 48_000}
CASES = {
    "JPEG": OutputCase(photo("jpg")),
    "odd PNG": OutputCase(photo("png", 161, 193), expected={"size": (194, 162)}),
    "large photo": OutputCase(photo("jpg", 1500, 2500), expected={"size": (1920, 1152)}),
    "rotated photo": OutputCase(rotated_photo, expected={"size": (160, 192)}),
    "PNG with alpha": OutputCase(photo("png", mode="RGBA")),
    "grey PNG": OutputCase(photo("png", mode="L")),
    "WebP": OutputCase(photo("webp")),
    "still GIF": OutputCase(photo("gif", mode="P")),
    "25 frames/s": _video_case(video("mp4")),
    "29.97 frames/s": _video_case(video("mp4", 30, fps=NTSC), fps=NTSC),
    "23.976 frames/s": _video_case(video("mkv", 24, fps=FILM), fps=FILM),
    "50 frames/s": _video_case(video("mp4", 50, fps=Fraction(50)), fps=Fraction(50)),
    "1 frame/s": _video_case(video("mp4", 3, fps=Fraction(1)), fps=Fraction(20)),
    "15 frames/s": _video_case(video("mp4", 15, fps=Fraction(15)), fps=Fraction(30)),
    "odd video": _video_case(
        video("mkv", 20, 161, 193, codec="ffv1", pix_fmt="yuv420p"), size=(194, 162)
    ),
    "tall pixels": _video_case(video("mp4", aspect=Fraction(4, 3)), size=(256, 160)),
    "rotated video": _video_case(rotated_video, size=(160, 192)),
    "BT.709, full range": _video_case(
        video("mkv", colour=(1, 2)), colour=(1, 2, 2, 2), pix_fmt="yuvj420p"
    ),
    "HEVC, 10 bit": _video_case(
        video("mp4", codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": "log-level=0"})
    ),
    "VP9": _video_case(video("webm", codec="libvpx-vp9")),
    "MPEG-2": _video_case(video("ts", codec="mpeg2video")),
    "ProRes": _video_case(video("mov", codec="prores_ks", pix_fmt="yuv422p10le")),
    "animated GIF": OutputCase(video("gif", codec="gif", pix_fmt="rgb8")),
    "stereo FLAC": _speech_case(
        audio("flac", "flac", "s16", 44_100, "stereo"), channels=2, rate=44_100
    ),
    "stereo AAC": _speech_case(
        audio("m4a", "aac", "fltp", 48_000, "stereo"), channels=2, rate=48_000
    ),
    "stereo MP3": _speech_case(
        audio("mp3", "libmp3lame", "fltp", 44_100, "stereo"), audio="mp3", channels=2, rate=44_100
    ),
    "5.1 WAV": _speech_case(
        audio("wav", "pcm_s16le", "s16", 48_000, "5.1"), channels=6, rate=48_000
    ),
    "8 kHz": _speech_case(audio("wav", "pcm_s16le", "s16", 8_000), rate=8_000),
    "192 kHz": _speech_case(audio("wav", "pcm_s16le", "s16", 192_000), rate=48_000),
    "Opus": _speech_case(audio("ogg", "libopus", "flt", 48_000, "stereo"), channels=2, rate=48_000),
    "MOV": _speech_case(
        audio("wav", "pcm_s16le", "s16", 44_100, "stereo"),
        "mov",
        audio="pcm_s16le",
        channels=2,
        rate=44_100,
    ),
    "Matroska": _speech_case(
        audio("flac", "flac", "s16", 44_100, "stereo"), "mkv", audio="flac", channels=2, rate=44_100
    ),
    "WebM": _speech_case(WAV, "webm", **_VP9 | {"rate": 48_000}),
    "WebM with copied Opus": _speech_case(
        audio("ogg", "libopus", "flt", 48_000, "stereo"), "webm", channels=2, **_VP9
    ),
    "GIF": _speech_case(
        WAV,
        "gif",
        video="gif",
        profile=None,
        pix_fmt=None,
        colour=None,
        audio=None,
        channels=None,
        rate=None,
    ),
}


def probe_output(path: Path) -> tuple[dict[str, Any], float, float]:
    """Return the properties of an output, and the durations of its video and audio in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        frames = list(container.decode(video=0))
        is_gif = context.name == "gif"
        colours = (
            context.colorspace,
            context.color_range,
            context.color_primaries,
            context.color_trc,
        )
        found = {
            "size": (context.width, context.height),
            "fps": stream.average_rate,
            "video": context.name.removeprefix("lib").removesuffix("-vp9").replace("vpx", "vp9"),
            "profile": None if is_gif else context.profile,
            "pix_fmt": None if is_gif else context.pix_fmt,
            "colour": None if is_gif else tuple(map(int, colours)),
        }
        video_s = float(frames[-1].time - frames[0].time + 1 / stream.average_rate)
    audio_s = video_s
    found |= dict.fromkeys(("audio", "channels", "rate"))
    with av.open(str(path)) as container:
        for stream in container.streams.audio:
            context = stream.codec_context
            samples = sum(frame.samples for frame in container.decode(stream))
            audio_s = samples / context.sample_rate
            names = {"libopus": "opus", "mp3float": "mp3"}
            found |= {
                "audio": names.get(context.name, context.name),
                "channels": context.layout.nb_channels,
                "rate": context.sample_rate,
            }
    return found, video_s, audio_s
