"""Tests of the detection of finished outputs."""

import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from talkinghead.media.writer import VideoWriter
from talkinghead.predict.batch.finished_outputs import KEY_TAG, find_finished, is_done, job_key
from talkinghead.predict.batch.jobs import Job

SETTINGS = {"checkpoint": "default", "crf": 18}


def _write(path: Path, key: str) -> None:
    with VideoWriter(path, 16, 16, Fraction(25), None, metadata={KEY_TAG: key}) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8))


@pytest.fixture
def job(tmp_path) -> Job:
    for name in ("face.png", "speech.wav"):
        (tmp_path / name).write_text(name)
    return Job(tmp_path / "face.png", tmp_path / "speech.wav", tmp_path / "out.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_output_is_done_only_with_its_own_key(job, suffix):
    job = replace(job, output=job.output.with_suffix(suffix))
    key = job_key(job, SETTINGS)
    assert not is_done(job, key)
    _write(job.output, "another")
    assert not is_done(job, key)
    _write(job.output, key)
    assert is_done(job, key)
    assert not is_done(job, None)
    assert list(find_finished([job], SETTINGS)) == [True]
    assert list(find_finished([job], {**SETTINGS, "crf": 20})) == [False]


@pytest.mark.parametrize(
    "content",
    [b"", b"moov", b"\0\0\0\x08free" * 3, b"\0\0\0\x04ftyp", b"\0\0\0\x01free" + b"\xff" * 8],
    ids=["empty", "short", "no header", "box too small", "box too large"],
)
def test_damaged_output_is_not_done(job, content):
    job.output.write_bytes(content)
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
