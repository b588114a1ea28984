"""Atomic writing: interruptions, full disks and impossible targets leave no partial file."""

import errno
import os
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.media_files import file_names

from talkinghead.errors import MediaError
from talkinghead.media.atomic_file import (
    atomic_folder,
    atomic_path,
    temporary_folder,
    temporary_name,
)
from talkinghead.media.reader import probe
from talkinghead.media.writer import VideoWriter

FPS = Fraction(25)
FRAME = np.zeros((16, 16, 3), np.uint8)


def test_interruption_removes_the_partial_file_and_keeps_the_old_one(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"old")

    def write() -> None:
        with VideoWriter(tmp_path / "a.mp4", 16, 16, FPS, None) as writer:
            for _ in range(60):
                writer.write(FRAME)
            assert any(".tmp" in name for name in file_names(tmp_path))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert file_names(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


def test_temporary_folder_of_a_killed_process_is_removed(tmp_path, monkeypatch):
    code = (
        "import os, signal\n"
        "from talkinghead.media.atomic_file import temporary_folder\n"
        "with temporary_folder():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert list(tmp_path.iterdir()) == [Path(folder)]


def test_files_of_dead_processes_are_removed(tmp_path):
    own, machine = temporary_name(), temporary_name().split("-")[1]
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead = f".talkinghead-{machine}-{process.pid}-123-0123abcd.tmp"
    # The process id of this test was that of another process before.
    reused = f".talkinghead-{machine}-{os.getpid()}-1-0123abcd.tmp.mp4"
    foreign = f".talkinghead-00000000-{process.pid}-123-0123abcd.tmp.mp4"
    for name in (own, f"{dead}.mp4", reused, foreign, ".other.tmp.mp4", "a.mp4"):
        (tmp_path / name).touch()
    (tmp_path / dead).mkdir()
    (tmp_path / dead / "inside").touch()
    with atomic_path(tmp_path / "b.json") as temporary:
        temporary.touch()
    assert set(file_names(tmp_path)) == {own, foreign, ".other.tmp.mp4", "a.mp4", "b.json"}


# RLIMIT_FSIZE simulates a full disk. The limit also applies to the output of the process, so the
# script runs by itself and exits with 0 only if every expectation holds.
_FULL_DISK = """
import resource, signal, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from talkinghead.errors import MediaError
from talkinghead.media.writer import VideoWriter

folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rng = np.random.default_rng(0)
images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(12)]
samples = rng.uniform(-0.5, 0.5, 7680).astype(np.float32)

def write_video():
    with VideoWriter(folder / "a.mp4", 64, 64, Fraction(25), 16_000) as writer:
        writer.write_audio(samples)
        for image in images:
            writer.write(image)

def fails(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        write_video()
    except MediaError as error:
        return "a.mp4: cannot be written" in str(error) and not list(folder.iterdir())
    return False

write_video()
size = (folder / "a.mp4").stat().st_size
(folder / "a.mp4").unlink()
# At the start, half-way, and while the index is moved to the front.
sys.exit(not all(map(fails, (0, 1_000, size // 2, size - 1_000, size - 1))))
"""


def test_full_disk_raises_an_error_and_leaves_no_file(tmp_path):
    subprocess.run([sys.executable, "-c", _FULL_DISK, str(tmp_path)], check=True)


@pytest.mark.parametrize(
    "name", ["a:b, 'c' (1)=50%03d \".mp4", "-i.mp4", "http:x.mp4", "n" * 251 + ".mp4", "no suffix"]
)
def test_unusual_file_names_are_written_and_read(tmp_path, name):
    path = tmp_path / "new" / "folder" / name
    umask = os.umask(0o022)
    try:
        with VideoWriter(path, 16, 16, FPS, None) as writer:
            writer.write(FRAME)
    finally:
        os.umask(umask)
    assert probe(path).width == 16
    assert path.stat().st_mode & 0o777 == 0o644


def test_invalid_targets_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    too_long, below_file = tmp_path / ("n" * 300), tmp_path / "file" / "a.mp4"
    for target in (tmp_path, below_file, Path("/dev/null"), Path("/proc/a.mp4"), too_long):
        with pytest.raises(MediaError), VideoWriter(target, 16, 16, FPS, None):
            pass
    assert file_names(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs names of open files")
def test_open_files_are_no_targets(tmp_path):
    with (tmp_path / "log").open("w") as log:
        name = f"/dev/fd/{log.fileno()}"
        with pytest.raises(MediaError, match="device or a pipe"), atomic_path(name):
            pass


def test_other_errors_in_the_with_body_are_raised_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "another").read_text()
    assert file_names(tmp_path) == []


def test_target_is_replaced_at_the_end_and_links_are_followed(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with atomic_path(tmp_path / "link.txt") as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
        temporary.write_text("new")
        assert (tmp_path / "real.txt").read_text() == "old"
    assert (tmp_path / "real.txt").read_text() == "new"
    assert (tmp_path / "link.txt").is_symlink()
    assert file_names(tmp_path) == ["link.txt", "real.txt"]


def test_folder_is_replaced_only_on_success(tmp_path):
    target = tmp_path / "export"
    for content in ("one", "two"):
        with atomic_folder(target) as folder:
            (folder / "file").write_text(content)

    def fail(error):
        with atomic_folder(target) as folder:
            (folder / "file").write_text("three")
            raise error

    with pytest.raises(MediaError, match=r"export: cannot be written \(No space left"):
        fail(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    assert (target / "file").read_text() == "two"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_that_cannot_be_renamed_keeps_its_files(tmp_path, monkeypatch):
    target = tmp_path / "volume"
    target.mkdir()
    (target / "file").write_text("one")
    rename = Path.rename

    def refuse(self, other):
        if self == target:
            raise OSError(errno.EBUSY, "Device or resource busy", str(self))
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(MediaError, match="volume: cannot be written"), atomic_folder(target):
        pass
    assert (target / "file").read_text() == "one"
    assert list(tmp_path.iterdir()) == [target]


def test_read_only_disk_is_reported_with_the_target(tmp_path, monkeypatch):
    def refuse(self, **_):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    message = r"a\.txt: cannot be written \(Read-only file system\)"
    with pytest.raises(MediaError, match=message), atomic_path(tmp_path / "a.txt") as temporary:
        raise OSError(errno.EROFS, "Read-only file system", str(temporary))
