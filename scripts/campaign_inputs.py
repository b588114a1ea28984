"""Generate media files with faults: mutated containers, wrong headers, absurd sizes and rates."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from talkinghead.media.audio_decoding import read_audio
from talkinghead.media.audio_samples import to_int16
from talkinghead.media.reader import read_image
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.paths import DEMO_SPEECH, demo_face
from talkinghead.types import FloatArray, UInt8Array

SIZE, RATE, SECONDS = 256, 16_000, 1
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aac", ".opus")
SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".ts", ".flv", ".wmv", ".3gp"),
    *(".ogv", ".mts", ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".heic", ".avif"),
    *(".svg", ".pdf", ".txt", ".csv", ".zip", "", ".safetensors", *AUDIO_SUFFIXES),
)
_CODECS = {
    ".mkv": ("libx264", "libopus"),
    ".webm": ("libvpx", "libopus"),
    ".avi": ("mpeg4", "mp3"),
    ".ts": ("libx264", "aac"),
    ".mov": ("libx264", "pcm_s16le"),
}


@dataclass(frozen=True)
class Input:
    """A generated file: the fault, and whether it is meant as speech."""

    path: Path
    fault: str

    @property
    def is_audio(self) -> bool:
        """Whether the suffix is that of an audio file."""
        return self.path.suffix in AUDIO_SUFFIXES


def base_files(folder: Path) -> list[Path]:
    """Write intact files of a face and of speech in several formats."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = read_audio(DEMO_SPEECH, RATE).samples[: SECONDS * RATE]
    image = read_image(demo_face())[:SIZE, 100 : 100 + SIZE]
    files = [folder / "face.png", folder / "face.jpg"]
    for path in files:
        write_image(path, image)
    files.append(folder / "video.mp4")
    with VideoWriter(files[-1], SIZE, SIZE, Fraction(25), RATE) as writer:
        writer.write_audio(samples)
        for shift in range(25 * SECONDS):
            writer.write(np.roll(image, shift % 3, 1))
    for suffix, codecs in _CODECS.items():
        files.append(folder / f"video{suffix}")
        _encode(files[-1], image, samples, *codecs)
    for suffix, codec in ((".flac", "flac"), (".mp3", "mp3"), (".ogg", "libopus"), (".m4a", "aac")):
        files.append(folder / f"speech{suffix}")
        _encode(files[-1], None, samples, None, codec)
    files.append(folder / "speech.wav")
    write_wav(files[-1], samples)
    return files


def write_wav(path: Path, samples: FloatArray, rate: int = RATE) -> None:
    """Write mono 16-bit PCM."""
    with wave.open(str(path), "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        writer.writeframes(to_int16(samples).tobytes())


def make_inputs(folder: Path, count: int, seed: int) -> list[Input]:
    """Write `count` files with faults; the same seed gives the same files."""
    rng = np.random.default_rng(seed)
    files = base_files(folder / "intact")
    originals = [path.read_bytes() for path in files]
    suffixes = [path.suffix for path in files]
    inputs = []
    makers = [*_MUTATIONS, _random_bytes, _absurd_header, _other_suffix, _joined]
    for number in range(count):
        make = makers[number % len(makers)]
        chosen = int(rng.integers(len(files)))
        data, suffix = make(originals[chosen], suffixes[chosen], rng, originals)
        path = folder / f"{number:03}{suffix}"
        path.write_bytes(data)
        inputs.append(Input(path, make.__name__.strip("_").replace("_", " ")))
    return inputs


def _encode(
    path: Path, image: UInt8Array | None, samples: FloatArray, video: str | None, audio: str
) -> None:
    with av.open(str(path), "w") as container:
        picture = None
        if video is not None and image is not None:
            picture = container.add_stream(video, rate=25)
            picture.width, picture.height, picture.pix_fmt = SIZE, SIZE, "yuv420p"
        sound = container.add_stream(audio, rate=48_000 if audio == "libopus" else RATE)
        resampler = av.AudioResampler(
            format=sound.codec_context.format or "s16", layout="mono", rate=sound.rate
        )
        for number in range(25 * SECONDS if picture is not None else 0):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(picture.encode(frame))
        if picture is not None:
            container.mux(picture.encode(None))
        chunk = av.AudioFrame.from_ndarray(to_int16(samples)[None], format="s16", layout="mono")
        chunk.sample_rate, chunk.pts = RATE, 0
        fifo = av.AudioFifo()
        for piece in (*resampler.resample(chunk), *resampler.resample(None)):
            fifo.write(piece)
        size = sound.codec_context.frame_size or 1024
        while (piece := fifo.read(size, partial=False)) is not None:
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))


Generator = np.random.Generator
Fault = Callable[[bytes, str, Generator, list[bytes]], tuple[bytes, str]]


def _truncated(data: bytes, suffix: str, rng: Generator, _: list[bytes]) -> tuple[bytes, str]:
    return data[: int(rng.integers(len(data)))], suffix


def _changed_bytes(data: bytes, suffix: str, rng: Generator, _: list[bytes]) -> tuple[bytes, str]:
    changed = bytearray(data)
    for place in rng.integers(len(data), size=int(rng.integers(1, 200))):
        changed[place] = int(rng.integers(256))
    return bytes(changed), suffix


def _changed_header(data: bytes, suffix: str, rng: Generator, _: list[bytes]) -> tuple[bytes, str]:
    size = min(len(data), int(rng.integers(4, 512)))
    start = int(rng.integers(0, 64))
    return data[:start] + rng.bytes(size) + data[start + size :], suffix


def _zeros(data: bytes, suffix: str, rng: Generator, _: list[bytes]) -> tuple[bytes, str]:
    start, size = int(rng.integers(len(data))), int(rng.integers(1, 1 << 14))
    return data[:start] + bytes(len(data[start : start + size])) + data[start + size :], suffix


def _missing_block(data: bytes, suffix: str, rng: Generator, _: list[bytes]) -> tuple[bytes, str]:
    start, size = int(rng.integers(len(data))), int(rng.integers(1, 1 << 13))
    return data[:start] + data[start + size :], suffix


_MUTATIONS: list[Fault] = [_truncated, _changed_bytes, _changed_header, _zeros, _missing_block]


def _random_bytes(data: bytes, suffix: str, rng: Generator, _: list[bytes]) -> tuple[bytes, str]:
    suffix = SUFFIXES[int(rng.integers(len(SUFFIXES)))]
    return rng.bytes(int(rng.choice([0, 1, 3, 16, 500, 20_000]))), suffix


def _other_suffix(data: bytes, suffix: str, rng: Generator, _: list[bytes]) -> tuple[bytes, str]:
    return data, SUFFIXES[int(rng.integers(len(SUFFIXES)))]


def _joined(data: bytes, suffix: str, rng: Generator, all_: list[bytes]) -> tuple[bytes, str]:
    return data[: int(rng.integers(len(data)))] + all_[int(rng.integers(len(all_)))], suffix


def _absurd_header(data: bytes, suffix: str, rng: Generator, _: list[bytes]) -> tuple[bytes, str]:
    headers = [*_wav_headers(rng), *_image_headers(rng)]
    return headers[int(rng.integers(len(headers)))]


def _wav_headers(rng: Generator) -> list[tuple[bytes, str]]:
    files = []
    for channels, rate, bits in (
        *((0, RATE, 16), (65_535, RATE, 16), (1, 0, 16), (1, 1, 16), (1, 2**32 - 1, 16)),
        *((1, 2**31, 8), (2, RATE, 0), (2, RATE, 7), (1, RATE, 64), (33, 192_000, 32)),
    ):
        form = struct.pack("<HHIIHH", 1, channels, rate, rate, 2, bits)
        size = int(rng.choice([0, 8000, 2**32 - 1]))
        body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
        files.append((b"RIFF" + struct.pack("<I", 2**32 - 1) + body + rng.bytes(8000), ".wav"))
    return files


def _image_headers(rng: Generator) -> list[tuple[bytes, str]]:
    def png(width: int, height: int) -> bytes:
        return (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
            + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
            + rng.bytes(2000)
        )

    def bmp(width: int, height: int) -> bytes:
        header = struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6)
        return b"BM" + header + rng.bytes(2000)

    sizes = ((0, 0), (1, 2**31 - 1), (99_999, 99_999), (2**31 - 1, 2**31 - 1))
    files = [(png(*size), ".png") for size in sizes]
    files += [(bmp(width, -height), ".bmp") for width, height in sizes]
    files += [(f"P6 {w} {h} 255\n".encode() + rng.bytes(999), ".jpg") for w, h in sizes]
    files += [(b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + rng.bytes(999), ".gif")]
    files += [(b"<svg width='1e9' height='1e9' xmlns='http://www.w3.org/2000/svg'/>", ".svg")]
    files += [(b"#EXTM3U\nhttp://127.0.0.1:9/x.ts\n", ".mp4"), (b"ffconcat version 1.0\n", ".mp4")]
    return files


def long_speech(seconds: int) -> FloatArray:
    """Return speech of some seconds, from the demonstration speech."""
    return np.resize(read_audio(DEMO_SPEECH, RATE).samples, seconds * RATE)
