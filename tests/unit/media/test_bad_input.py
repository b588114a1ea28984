"""Unreadable, damaged and hostile files: readers raise a one-line error that names the file."""

import os
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager

import av
import numpy as np
import pytest
from helpers.media_files import quadrants, tone, write_media
from PIL import Image

from talkinghead.errors import MediaError
from talkinghead.media.container import find_video
from talkinghead.media.image import RGBConverter
from talkinghead.media.reader import (
    MAX_PIXELS,
    is_image,
    probe,
    read_audio,
    read_image,
    read_video,
    stream_audio,
)
from talkinghead.media.writer import VideoWriter

RATE = 16_000
READERS = {
    "probe": probe,
    "is_image": is_image,
    "read_image": read_image,
    "read_video": lambda path: list(read_video(path)),
    "read_audio": lambda path: read_audio(path, RATE),
}


@contextmanager
def media_error(path, match=None):
    """Expect a one-line MediaError that starts with the path and ends with advice."""
    with pytest.raises(MediaError, match=match) as caught:
        yield caught
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert ";" in message


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_missing_files_directories_and_empty_files_are_refused(tmp_path, reader):
    (tmp_path / "empty.mp4").touch()
    for path, reason in {
        tmp_path / "missing.mp4": "no such file",
        tmp_path: "is a directory",
        tmp_path / "empty.mp4": "is empty",
        tmp_path / "empty.mp4" / "below.mp4": None,
        tmp_path / ("n" * 300): None,
    }.items():
        with media_error(path, reason):
            reader(path)


@pytest.mark.parametrize(
    "content",
    [
        b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile 'other.ts'\n",
        np.random.default_rng(0).bytes(50_000),
    ],
    ids=["subtitles", "playlist", "list", "noise"],
)
def test_non_media_content_with_a_media_suffix_is_refused(tmp_path, content):
    write_media(tmp_path / "other.ts", [quadrants()] * 3, codec="mpeg2video")
    for suffix in ("mp4", "wav", "png", "txt", "m3u8"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(content)
        for read in READERS.values():
            with media_error(path):
                read(path)


@pytest.fixture(scope="module")
def intact_file(tmp_path_factory):
    """Two seconds of incompressible noise with the index first."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("intact") / "a.mp4"
    with VideoWriter(path, 64, 48, 25, RATE) as writer:
        writer.write_audio(tone(2, RATE))
        for _ in range(50):
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize("fraction", [0.5, 0.999])
def test_truncated_mp4_yields_the_intact_frames_first(tmp_path, intact_file, fraction):
    path = tmp_path / "cut.mp4"
    path.write_bytes(intact_file.read_bytes()[: int(intact_file.stat().st_size * fraction)])
    frames: list = []
    with media_error(path, r"truncated or damaged, \d+\.\d\d"):
        for frame in read_video(path):
            frames.append(frame)
    assert 50 * fraction - 20 < len(frames)
    assert len(frames) < 50 or fraction > 0.9
    with media_error(path, "truncated"):
        read_audio(path, RATE)


def test_mp4_without_an_index_is_refused(tmp_path):
    path = write_media(tmp_path / "a.mp4", [quadrants()] * 20)
    path.write_bytes(path.read_bytes()[:-100])
    for name in ("probe", "read_image", "read_video", "read_audio"):
        with media_error(path):
            READERS[name](path)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "flv", "ts", "mpg", "webm"])
def test_containers_are_read_and_truncated_ones_are_refused(tmp_path, suffix):
    codecs = {"webm": ("libvpx-vp9", "libopus"), "mpg": ("mpeg1video", "mp2")}
    codec, audio_codec = codecs.get(suffix, ("libx264", "aac"))
    formats = {"libopus": "flt", "mp2": "s16"}
    rate = 48_000 if audio_codec in formats else 44_100
    path = write_media(
        tmp_path / f"a.{suffix}",
        [quadrants()] * 50,
        codec=codec,
        audio=tone(1.7, rate),
        sample_rate=rate,
        audio_codec=audio_codec,
        audio_format=formats.get(audio_codec, "fltp"),
    )
    assert len(list(read_video(path))) == 50
    assert abs(len(read_audio(path, RATE).samples) / RATE - 1.7) < 0.08
    if suffix in ("mkv", "avi"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with media_error(path, "truncated"):
            list(read_video(path))


def test_damage_in_the_middle_of_a_file_is_reported(tmp_path, intact_file):
    data = bytearray(intact_file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with media_error(path, "damaged"):
        list(read_video(path))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("fraction", [0.01, 0.9])
def test_truncated_photo_is_refused(tmp_path, suffix, fraction):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(image).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with media_error(path):
        read_image(path)


def test_missing_audio_or_video_stream_is_refused(tmp_path):
    speech = write_media(tmp_path / "a.m4a", audio=tone(1, RATE))
    assert not is_image(speech)
    for read in (read_image, read_video):
        with media_error(speech, "no video"):
            read(speech)
    Image.fromarray(quadrants()).save(tmp_path / "a.png")
    for read in (read_audio, stream_audio):
        with media_error(tmp_path / "a.png", "has no audio"):
            read(tmp_path / "a.png", RATE)


@pytest.mark.parametrize("side", [12_000, 70_000])
def test_decompression_bomb_is_refused(tmp_path, side):
    # A black one-bit PNG in less than a megabyte; the larger one has only the header.
    path = tmp_path / "a.png"
    Image.new("1", (12_000, 12_000)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    for reader in READERS.values():
        with media_error(path, f"{MAX_PIXELS:,}" if reader is probe else None):
            reader(path)


def test_decoder_applies_the_pixel_limit(tmp_path):
    # A header may state a smaller size than the frames have.
    path = write_media(tmp_path / "a.mkv", [quadrants()] * 2)
    with av.open(str(path)) as container:
        find_video(container, path)
        options = container.streams.video[0].codec_context.options
        assert options["max_pixels"] == str(MAX_PIXELS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read all files")
def test_missing_read_permission_is_reported(tmp_path):
    path = write_media(tmp_path / "a.mp4", [quadrants()])
    path.chmod(0)
    with media_error(path, "ermission"):
        probe(path)


def _write_exr(path, size):
    """Write an uncompressed OpenEXR image with 32-bit float channels for luminance and alpha."""

    def attribute(name, kind, data):
        return name + b"\0" + kind + b"\0" + struct.pack("<i", len(data)) + data

    channels = b"".join(
        c + b"\0" + struct.pack("<i4B2i", 2, 0, 0, 0, 0, 1, 1) for c in (b"A", b"Y")
    )
    box = struct.pack("<4i", 0, 0, size - 1, size - 1)
    header = (
        struct.pack("<2i", 20000630, 2)
        + attribute(b"channels", b"chlist", channels + b"\0")
        + attribute(b"compression", b"compression", b"\0")
        + attribute(b"dataWindow", b"box2i", box)
        + attribute(b"displayWindow", b"box2i", box)
        + attribute(b"lineOrder", b"lineOrder", b"\0")
        + attribute(b"pixelAspectRatio", b"float", struct.pack("<f", 1))
        + attribute(b"screenWindowCenter", b"v2f", bytes(8))
        + attribute(b"screenWindowWidth", b"float", struct.pack("<f", 1))
        + b"\0"
    )
    pixels = np.full(2 * size, 0.5, "<f4").tobytes()
    row_bytes = 8 + len(pixels)
    first = len(header) + 8 * size
    offsets = b"".join(struct.pack("<Q", first + y * row_bytes) for y in range(size))
    rows = b"".join(struct.pack("<2i", y, len(pixels)) + pixels for y in range(size))
    path.write_bytes(header + offsets + rows)


@pytest.mark.parametrize("name", ["probe", "read_image"])
def test_float_luminance_with_alpha_is_refused(tmp_path, name):
    """Its conversion would abort the process, so it is tried in another one."""
    path = tmp_path / "a.exr"
    _write_exr(path, 32)
    code = f"from talkinghead.media.reader import {name}; {name}({str(path)!r})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "MediaError: " in result.stderr
    assert "its pixel format yaf32le cannot be converted" in result.stderr


def test_failed_conversion_of_a_frame_is_reported(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(12, "Cannot allocate memory")

    path = write_media(tmp_path / "a.mp4", [quadrants()])
    monkeypatch.setattr(RGBConverter, "__call__", fails)
    for read in (probe, read_image):
        with media_error(path, "yuv420p cannot be converted .Cannot allocate memory"):
            read(path)


@pytest.mark.parametrize(("channels", "rate"), [(0, 16_000), (1, 0), (1, 1), (1, 2**31)])
def test_audio_without_channels_or_rate_is_refused(tmp_path, channels, rate):
    form = struct.pack("<HHIIHH", 1, channels, rate, rate, 2, 16)
    body = (
        b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", 800) + bytes(800)
    )
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + body)
    with pytest.raises(MediaError):
        read_audio(tmp_path / "a.wav", 16_000)
