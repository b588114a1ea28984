"""Tests of the detection of finished outputs."""

import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import fsspec
import numpy as np
import pytest

from talkinghead.media.writer import open_writer
from talkinghead.predict.batch.finished_outputs import KEY_TAG, find_finished, is_done, job_key
from talkinghead.predict.batch.jobs import Job

SETTINGS = {"checkpoint": "default", "crf": 18}


def _write(path: Path, key: str) -> None:
    # The comment is longer than a block of a GIF comment.
    tags = {"comment": "é" * 120, KEY_TAG: key}
    with open_writer(path, 16, 16, Fraction(25), None, metadata=tags) as writer:
        for level in (0, 200):
            writer.write(np.full((16, 16, 3), level, np.uint8))


@pytest.fixture
def job(tmp_path) -> Job:
    for name in ("face.png", "speech.wav"):
        (tmp_path / name).write_text(name)
    return Job(tmp_path / "face.png", tmp_path / "speech.wav", tmp_path / "out.mp4")


NAMES = ["a.mp4", "a", "100%d.mov", "a.mkv", "a.webm", "a.gif", "frames/%05d.png", "a_%d.JPG"]


@pytest.mark.parametrize("name", NAMES)
def test_output_is_done_only_with_its_own_key(job, tmp_path, name):
    job = replace(job, output=tmp_path / name)
    key = job_key(job, SETTINGS)
    assert not is_done(job, key)
    _write(job.output, "another")
    assert not is_done(job, key)
    _write(job.output, key)
    assert is_done(job, key)
    assert not is_done(job, None)
    assert list(find_finished([job], SETTINGS)) == [True]
    assert list(find_finished([job], {**SETTINGS, "crf": 20})) == [False]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif"])
def test_remote_output_is_done_only_with_its_own_key(job, tmp_path, name):
    key = job_key(job, SETTINGS)
    _write(tmp_path / name, key)
    url = f"memory://finished/{name}"
    job = replace(job, output=url)
    assert not is_done(job, key)
    fsspec.filesystem("memory").put_file(str(tmp_path / name), url)
    assert is_done(job, key)
    assert not is_done(job, key[::-1])


def test_image_sequence_without_its_first_image_is_not_done(job, tmp_path):
    job = replace(job, output=tmp_path / "%d.png")
    key = job_key(job, SETTINGS)
    _write(job.output, key)
    (tmp_path / "1.png").unlink()
    assert (tmp_path / "2.png").exists()
    assert not is_done(job, key)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "%d.png"])
@pytest.mark.parametrize(
    "content",
    [b"", b"moov", b"\0\0\0\x08free" * 3, b"\0\0\0\x04ftyp", b"\0\0\0\x01free" + b"\xff" * 8],
    ids=["empty", "short", "no header", "box too small", "box too large"],
)
def test_damaged_output_is_not_done(job, tmp_path, name, content):
    job = replace(job, output=tmp_path / name)
    (tmp_path / name.replace("%d", "1")).write_bytes(content)
    assert not is_done(job, job_key(job, SETTINGS))


@pytest.mark.slow
def test_ten_thousand_finished_jobs_are_found_in_seconds(job, tmp_path):
    key = job_key(job, SETTINGS)
    _write(job.output, key)
    jobs = [replace(job, output=tmp_path / f"{number}.mp4") for number in range(10_000)]
    for other in jobs:
        other.output.hardlink_to(job.output)
    start_s = time.monotonic()
    assert all(find_finished(jobs, SETTINGS))
    assert time.monotonic() - start_s < 10
