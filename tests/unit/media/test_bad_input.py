"""Whatever is wrong with a file, its reader says so in one line that names it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media_files import quadrants, tone, write_media
from PIL import Image

from talkinghead.errors import MediaError
from talkinghead.media.container import find_video
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
READERS: dict[str, Callable] = {
    "probe": probe,
    "is_image": is_image,
    "read_image": read_image,
    "read_video": lambda path: list(read_video(path)),
    "read_audio": lambda path: read_audio(path, RATE),
}


@pytest.fixture(params=READERS)
def reader(request) -> Callable:
    return READERS[request.param]


def assert_said(caught: pytest.ExceptionInfo, path: Path) -> None:
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    # What to do comes last.
    assert ";" in message


def test_missing(tmp_path, reader):
    with pytest.raises(MediaError, match="no such file") as caught:
        reader(tmp_path / "gone.mp4")
    assert_said(caught, tmp_path / "gone.mp4")


def test_directory(tmp_path, reader):
    with pytest.raises(MediaError, match="is a directory") as caught:
        reader(tmp_path)
    assert_said(caught, tmp_path)


def test_a_file_below_a_file_and_a_name_too_long(tmp_path, reader):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "a.mp4", tmp_path / ("n" * 300)):
        with pytest.raises(MediaError) as caught:
            reader(path)
        assert_said(caught, path)


def test_empty(tmp_path, reader):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(MediaError, match="is empty") as caught:
        reader(tmp_path / "a.mp4")
    assert_said(caught, tmp_path / "a.mp4")


TEXTS = {
    "prose": "It was a dark and stormy night.\n" * 50,
    "subtitles": "1\n00:00:01,000 --> 00:00:02,000\nHello\n\n",
    "playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{other}\n#EXT-X-ENDLIST\n",
    "list": "ffconcat version 1.0\nfile '{other}'\n",
}


@pytest.mark.parametrize("suffix", ["mp4", "wav", "mp3", "png", "jpg", "txt", "m3u8"])
@pytest.mark.parametrize("kind", TEXTS)
def test_text_under_another_name(tmp_path, reader, suffix, kind):
    other = write_media(tmp_path / "other.ts", [quadrants()] * 3, codec="mpeg2video")
    path = tmp_path / f"a.{suffix}"
    path.write_text(TEXTS[kind].format(other=other.name))
    with pytest.raises(MediaError) as caught:
        reader(path)
    assert_said(caught, path)


def test_noise_under_another_name(tmp_path, reader):
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    with pytest.raises(MediaError) as caught:
        reader(path)
    assert_said(caught, path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two seconds, index in front, of noise that does not compress away."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(50)]
    path = tmp_path_factory.mktemp("whole") / "a.mp4"
    with VideoWriter(path, 64, 48, 25, RATE) as writer:
        writer.write_audio(tone(2, RATE))
        for image in images:
            writer.write(image)
    return path


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 0.999])
def test_a_truncated_mp4(tmp_path, whole, share):
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    frames: list = []

    def read(pictures: Iterator) -> None:
        frames.extend(pictures)

    with pytest.raises(MediaError, match=r"truncated or damaged, \d+\.\d\d") as caught:
        read(read_video(path))
    assert_said(caught, path)
    assert len(frames) < 50 or share > 0.9
    # What came before it has been given.
    assert len(frames) > 50 * share - 20
    with pytest.raises(MediaError, match="truncated") as caught:
        read_audio(path, RATE)
    assert_said(caught, path)


@pytest.mark.parametrize("name", ["probe", "read_image", "read_video", "read_audio"])
def test_an_mp4_without_its_index(tmp_path, name):
    path = write_media(tmp_path / "a.mp4", [quadrants()] * 20)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MediaError) as caught:
        READERS[name](path)
    assert_said(caught, path)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_other_truncated_containers(tmp_path, name):
    path = write_media(tmp_path / name, [quadrants()] * 50, sound=tone(2, RATE))
    assert len(list(read_video(path))) == 50
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match="truncated") as caught:
        list(read_video(path))
    assert_said(caught, path)


def test_whole_files_of_many_kinds_are_not_called_truncated(tmp_path):
    for name in ("a.mp4", "a.mov", "a.mkv", "a.avi", "a.flv", "a.ts", "a.mpg", "a.webm"):
        codecs = {"a.webm": ("libvpx-vp9", "libopus"), "a.mpg": ("mpeg1video", "mp2")}
        codec, sound_codec = codecs.get(name, ("libx264", "aac"))
        formats = {"libopus": "flt", "mp2": "s16"}
        rate = 48_000 if sound_codec in formats else 44_100
        path = write_media(
            tmp_path / name,
            [quadrants()] * 25,
            codec=codec,
            sound=tone(1.7, rate),
            sample_rate=rate,
            sound_codec=sound_codec,
            sound_format=formats.get(sound_codec, "fltp"),
        )
        assert len(list(read_video(path))) == 25, name
        assert abs(len(read_audio(path, RATE).samples) / RATE - 1.7) < 0.08, name


def test_damage_in_the_middle(tmp_path, whole):
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError, match="damaged") as caught:
        list(read_video(path))
    assert_said(caught, path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_a_truncated_photo_is_not_half_grey(tmp_path, suffix, share):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(image).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(MediaError) as caught:
        read_image(path)
    assert_said(caught, path)


def test_sound_where_pictures_are_needed(tmp_path):
    path = write_media(tmp_path / "a.m4a", sound=tone(1, RATE))
    for read in (read_image, read_video):
        with pytest.raises(MediaError, match="no pictures") as caught:
            read(path)
        assert_said(caught, path)
    assert not is_image(path)


def test_pictures_where_sound_is_needed(tmp_path):
    Image.fromarray(quadrants()).save(tmp_path / "a.png")
    for read in (read_audio, stream_audio):
        with pytest.raises(MediaError, match="has no sound") as caught:
            read(tmp_path / "a.png", RATE)
        assert_said(caught, tmp_path / "a.png")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(path: Path, side: int) -> Path:
    """A black one-bit PNG of side x side pixels, in a few kilobytes."""
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side), 6) if side < 40_000 else b""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", rows)
        + png_chunk(b"IEND", b"")
    )
    return path


@pytest.fixture(scope="module", params=[12_000, 30_000, 70_000])
def bomb(request, tmp_path_factory) -> Path:
    return png_bomb(tmp_path_factory.mktemp("bomb") / "a.png", request.param)


def test_a_decompression_bomb(bomb, reader):
    path = bomb
    assert path.stat().st_size < 1_000_000
    with pytest.raises(MediaError) as caught:
        reader(path)
    assert_said(caught, path)
    if reader is probe:
        assert f"{MAX_PIXELS:,}" in str(caught.value)


def test_a_header_that_hides_the_size(tmp_path):
    # Cut down for the container, the pictures stay large for the decoder, which has the limit too.
    path = write_media(tmp_path / "a.mkv", [quadrants()] * 2)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        find_video(container, path)
        assert stream.codec_context.options["max_pixels"] == str(MAX_PIXELS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path, reader):
    path = write_media(tmp_path / "a.mp4", [quadrants()])
    path.chmod(0)
    with pytest.raises(MediaError, match="ermission") as caught:
        reader(path)
    assert_said(caught, path)
