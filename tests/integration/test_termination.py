"""Signals end predictions: no file is left, or the next run removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.media_files import file_names
from scipy.io import wavfile

from talkinghead.paths import demo_face

pytestmark = pytest.mark.slow


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    wavfile.write(folder / "long.wav", 16_000, np.zeros(120 * 16_000, np.int16))
    wavfile.write(folder / "short.wav", 16_000, np.zeros(4000, np.int16))
    face = f"face={demo_face()}"
    command = [sys.executable, "-m", "talkinghead", "predict", face, "lip_prior=none", *arguments]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE)


def wait_for_temporary_file(folder: Path, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        if folder.is_dir() and any(".tmp" in name for name in file_names(folder)):
            return
        time.sleep(0.05)
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_leaves_no_file(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, "audio=long.wav", "output=out/a.mp4")
    wait_for_temporary_file(tmp_path / "out", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    message = "" if number == signal.SIGINT else f" by {number.name}"
    assert errors.decode().splitlines()[-1] == f"talkinghead: interrupted{message}"
    assert file_names(tmp_path / "out") == []


def test_file_of_a_killed_run_is_removed_by_the_next_run(tmp_path: Path) -> None:
    process = start(tmp_path, "audio=long.wav", "output=out/a.mp4")
    wait_for_temporary_file(tmp_path / "out", process)
    process.kill()
    process.communicate()
    assert len(file_names(tmp_path / "out")) == 1
    process = start(tmp_path, "audio=short.wav", "output=out/b.mp4")
    process.communicate(timeout=300)
    assert file_names(tmp_path / "out") == ["b.mp4"]


def test_workers_of_a_killed_run_end_and_leave_no_file(tmp_path: Path) -> None:
    jobs = "".join(f"{demo_face()},long.wav,out/{number}.mp4\n" for number in range(2))
    (tmp_path / "jobs.csv").write_text(f"face,audio,output\n{jobs}")
    command = [sys.executable, "-m", "talkinghead", "predict", "jobs=jobs.csv", "workers=2"]
    wavfile.write(tmp_path / "long.wav", 16_000, np.zeros(120 * 16_000, np.int16))
    process = subprocess.Popen(
        [*command, "lip_prior=none"], cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True
    )
    wait_for_temporary_file(tmp_path / "out", process)
    process.kill()
    process.wait()
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.2)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError("the workers do not end")
    assert file_names(tmp_path / "out") == []
