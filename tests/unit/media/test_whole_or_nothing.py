"""Files appear whole or not at all; WAV, PNG and JPEG can be read again."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from helpers.media_files import leftovers, smooth, tone
from PIL import Image

from talkinghead.errors import MediaError
from talkinghead.media.reader import probe, read_audio, read_image
from talkinghead.media.writer import VideoWriter, atomic_path, write_audio_file, write_image
from talkinghead.types import AudioClip

RATE = 16_000
FPS = Fraction(25)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_is_left_when_it_is_interrupted(tmp_path, error):
    (tmp_path / "a.mp4").write_bytes(b"the one before")
    image = np.zeros((16, 16, 3), np.uint8)

    def interrupted():
        with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, RATE) as writer:
            writer.write_audio(tone(1, RATE))
            for index in range(100):
                writer.write(image)
                assert any(".tmp" in name for name in leftovers(tmp_path))
                if index == 60:
                    raise error

    with pytest.raises(error):
        interrupted()
    assert leftovers(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"the one before"


_ENDLESS = """
import signal, sys
from fractions import Fraction
import numpy as np
from talkinghead.media.writer import VideoWriter
# Whoever runs the tests in the background has Ctrl-C ignored, and so would this process.
signal.signal(signal.SIGINT, signal.default_int_handler)
rng = np.random.default_rng(0)
with VideoWriter(sys.argv[1], 64, 64, Fraction(25), None) as writer:
    while True:
        writer.write(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        sys.stdout.write(".")
        sys.stdout.flush()
"""


def test_ctrl_c_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, str(tmp_path / "a.mp4")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    process.stdout.read(100)
    assert len(leftovers(tmp_path)) == 1
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert leftovers(tmp_path) == []


@pytest.fixture
def small_disk():
    """No file may grow beyond so many bytes: what a full disk is to whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, small_disk):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(12)]
    path = tmp_path / "a.mp4"

    def write():
        with VideoWriter(path, 64, 64, FPS, RATE) as writer:
            writer.write_audio(tone(0.48, RATE))
            for image in images:
                writer.write(image)

    write()
    whole = path.stat().st_size
    path.unlink()
    # At the start, half-way, and while the index moves to the front.
    for size in (0, 1_000, whole // 2, whole - 1_000, whole - 1):
        small_disk(size)
        with pytest.raises(MediaError, match=r"a\.mp4: cannot be written"):
            write()
        assert leftovers(tmp_path) == []
    small_disk(whole)
    write()
    assert path.stat().st_size == whole


def test_a_wav_and_a_picture_on_a_full_disk(tmp_path, small_disk):
    small_disk(500)
    with pytest.raises(MediaError, match=r"a\.wav: cannot be written"):
        write_audio_file(tmp_path / "a.wav", AudioClip(tone(1, RATE), RATE))
    with pytest.raises(MediaError, match=r"a\.png: cannot be written"):
        write_image(tmp_path / "a.png", smooth(64, 64))
    assert leftovers(tmp_path) == []


def test_missing_folders_are_made(tmp_path):
    with VideoWriter(tmp_path / "new" / "er" / "a.mp4", 16, 16, FPS, None) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))
    assert leftovers(tmp_path / "new" / "er") == ["a.mp4"]


def test_strange_names(tmp_path):
    for name in ("a:b, 'c' (1)=50%03d \".mp4", "-i.mp4", "n" * 251 + ".mp4", "no suffix"):
        with VideoWriter(tmp_path / name, 16, 16, FPS, None) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
        assert probe(tmp_path / name).num_frames_estimate == 1


def test_targets_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("x")
    targets = [
        tmp_path,
        tmp_path / "file" / "a.mp4",
        "/dev/null",
        "/proc/a.mp4",
        tmp_path / ("n" * 300),
    ]
    for target in targets:
        with pytest.raises(MediaError), VideoWriter(target, 16, 16, FPS, None):
            pass
    assert leftovers(tmp_path) == ["file"]


def test_atomic_path_leaves_other_errors_alone(tmp_path):
    def fail(temporary):
        temporary.write_text("half")
        raise ConnectionError

    with pytest.raises(ConnectionError), atomic_path(tmp_path / "a.txt") as temporary:
        fail(temporary)
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "another").read_text()
    assert leftovers(tmp_path) == []


def test_atomic_path_replaces_at_the_end_and_follows_links(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with atomic_path(tmp_path / "link.txt") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert (tmp_path / "real.txt").read_text() == "old"
    assert (tmp_path / "real.txt").read_text() == "new"
    assert (tmp_path / "link.txt").is_symlink()
    assert leftovers(tmp_path) == ["link.txt", "real.txt"]


def test_a_file_of_ones_own_has_the_usual_permissions(tmp_path):
    umask = os.umask(0o022)
    try:
        write_image(tmp_path / "a.png", smooth(8, 8))
    finally:
        os.umask(umask)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o644


def test_wav_round_trip(tmp_path):
    samples = np.array([0, 0.5, -0.5, 1, -1, 2, -2, 1 / 32768], np.float32)
    write_audio_file(tmp_path / "a.wav", AudioClip(samples, 22_050))
    clip = read_audio(tmp_path / "a.wav", 22_050)
    assert np.abs(clip.samples - np.clip(samples, -1, 1)).max() <= 1 / 32768
    assert probe(tmp_path / "a.wav").sample_rate == 22_050
    with pytest.raises(MediaError, match="NaN"):
        write_audio_file(tmp_path / "b.wav", AudioClip(samples * np.nan, 22_050))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "A.JPEG"])
@pytest.mark.parametrize("size", [(47, 33), (64, 64)])
def test_pictures_round_trip(tmp_path, name, size):
    image = smooth(*size)
    write_image(tmp_path / name, image)
    with Image.open(tmp_path / name) as picture:
        seen = np.asarray(picture.convert("RGB")).astype(int)
    difference = np.abs(seen - image)
    assert difference.max() <= (0 if name == "a.png" else 12)
    assert np.abs((seen - image.astype(int)).mean((0, 1))).max() < 1
    assert np.abs(read_image(tmp_path / name).astype(int) - seen).max() <= 4


def test_pictures_of_other_kinds_are_refused(tmp_path):
    for name, image in {"a.bmp": smooth(8, 8), "a.png": np.zeros((8, 8, 4), np.uint8)}.items():
        with pytest.raises(MediaError, match=name):
            write_image(tmp_path / name, image)
    assert leftovers(tmp_path) == []
