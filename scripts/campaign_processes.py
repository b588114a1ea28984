"""Interrupt commands at random times, run two at once, and run them without a home or /tmp."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from campaign_inputs import SECONDS, base_files, long_speech, write_wav

from talkinghead.errors import TalkingHeadError
from talkinghead.media.reader import probe

COMMANDS = ("predict", "batch", "prepare", "train")
_LIMIT_S = 900
_TINY_MODEL = (
    *("experiment=smoke", "model.max_iterations=30", "data.num_workers=0", "logger=none"),
    *("callbacks.preview=null", "callbacks.last.minutes=0.01", "trainer.accelerator=cpu"),
)


@dataclass(frozen=True)
class Task:
    """A command with its outputs.

    Attributes:
        arguments: The command line after `talkinghead`.
        resumed: Additional arguments when the command is run again.
        check: Returns what is wrong with the outputs in the folder; empty if nothing is.
    """

    folder: Path
    arguments: tuple[str, ...]
    check: Callable[[Path], str]
    resumed: tuple[str, ...] = ()


def make_task(command: str, folder: Path) -> Task:
    """Return one of `COMMANDS` with its inputs in a new folder."""
    folder.mkdir(parents=True)
    files = {path.name: path for path in base_files(folder / "intact")}
    write_wav(folder / "long.wav", long_speech(8))
    face, speech = files["face.jpg"], folder / "long.wav"
    if command == "predict":
        inputs = (f"face={face}", f"audio={speech}", "output=out/video.mp4")
        return Task(
            folder, ("predict", *inputs, "lip_prior=none"), lambda f: _check_videos(f, 1, 8)
        )
    if command == "batch":
        with (folder / "jobs.csv").open("w", newline="") as file:
            rows = [(face, files["speech.wav"], folder / f"out/{n}.mp4") for n in range(6)]
            csv.writer(file).writerows([("face", "audio", "output"), *rows])
        inputs = ("jobs=jobs.csv", "workers=2", "lip_prior=none")
        arguments = ("predict", *inputs)
        return Task(folder, arguments, lambda path: _check_videos(path, 6, SECONDS))
    if command == "prepare":
        for number in range(6):
            (folder / "raw/anna").mkdir(parents=True, exist_ok=True)
            # Equal files are skipped as copies, so each gets another MP4 box that players ignore.
            box = (9).to_bytes(4, "big") + b"free" + bytes([number])
            path = folder / f"raw/anna/{number}.mp4"
            path.write_bytes(files["video.mp4"].read_bytes() + box)
        inputs = ("input=raw", "output=out", "workers=2", "rules.min_face_px=20")
        return Task(folder, ("prepare", *inputs, "rules.min_duration_s=0.5"), _check_corpus)
    resumed = ("ckpt_path=last",)
    return Task(folder, ("train", *_TINY_MODEL, "name=out"), _check_run, resumed)


def start(
    task: Task, environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start the command of a task in its folder, with its log in `log.txt`."""
    is_resumed = bool(task.resumed) and any(task.folder.rglob("last.ckpt"))
    words = [*prefix, sys.executable, "-m", "talkinghead", *task.arguments]
    with (task.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [*words, *(task.resumed if is_resumed else ())],
            cwd=task.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def interrupt_at_random(
    command: str, count: int, number: signal.Signals, folder: Path, seed: int
) -> list[str]:
    """Interrupt a command `count` times, let it finish, and return the faults.

    After each interruption the command is started again, as a user would, so that it continues.
    """
    rng, faults = np.random.default_rng(seed), list[str]()
    task = make_task(command, folder / "0")
    started_s = time.monotonic()
    faults += _finish(task, f"{command} without interruption")
    duration_s = time.monotonic() - started_s
    task, remaining, rounds = make_task(command, folder / "1"), count, 1
    while remaining:
        process, started_s = start(task), time.monotonic()
        try:
            process.wait(float(rng.uniform(0.1, 1.0)) * duration_s)
        except subprocess.TimeoutExpired:
            faults += _interrupt(process, number, task)
            remaining -= 1
            continue
        # The command finished before the interruption: check its outputs, and start again.
        faults += _faults(task, process.returncode, f"{command} after interruptions")
        duration_s = min(duration_s, time.monotonic() - started_s)
        rounds += 1
        task = make_task(command, folder / str(rounds))
    return faults + _finish(task, f"{command} after {count} interruptions")


def _interrupt(process: subprocess.Popen[bytes], number: signal.Signals, task: Task) -> list[str]:
    process.send_signal(number)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return [f"{task.arguments[0]}: does not end within 60 s of {number.name}"]
    if number == signal.SIGKILL:
        _wait_for_group(process.pid)
        return []
    faults = [f"left {name}" for name in _temporary(task.folder)]
    if process.returncode not in (0, 128 + number):
        faults.append(f"{task.arguments[0]}: exit status {process.returncode} after {number.name}")
    return faults + _tracebacks(task)


def _wait_for_group(group: int) -> None:
    """Wait until the workers of a killed process have ended by themselves; kill them after 60 s."""
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.killpg(group, signal.SIGKILL)


def _finish(task: Task, name: str) -> list[str]:
    process = start(task)
    try:
        status = process.wait(_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return [f"{name}: not finished after {_LIMIT_S} s"]
    return _faults(task, status, name)


def _faults(task: Task, status: int, name: str) -> list[str]:
    faults = [f"{name}: left {file}" for file in _temporary(task.folder)] + _tracebacks(task)
    if status:
        lines = (task.folder / "log.txt").read_text(errors="replace").strip().splitlines()
        faults.append(f"{name}: exit status {status}: {lines[-1][:300] if lines else ''}")
    if problem := task.check(task.folder):
        faults.append(f"{name}: {problem}")
    return faults


def run_twice_at_once(folder: Path) -> list[str]:
    """Run two predictions on one output at the same time, and return the faults."""
    task = make_task("predict", folder)
    processes = [start(task), start(task)]
    statuses = [process.wait(_LIMIT_S) for process in processes]
    return _faults(task, max(statuses), "two runs on one output")


def run_in_environments(folder: Path) -> dict[str, list[str]]:
    """Predict with no or a read-only home folder, as an unknown user, and without /tmp."""
    home = folder / "home"
    home.mkdir(parents=True)
    home.chmod(0o500)
    without = dict.fromkeys(("HOME", "XDG_CACHE_HOME"), "")
    cases: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
        "read-only home": ({**without, "HOME": str(home)}, ()),
        "no home": ({**without, "HOME": "/nonexistent"}, ()),
        "HOME not set": ({}, ("env", "-u", "HOME", "-u", "XDG_CACHE_HOME")),
    }
    if os.getuid() == 0:
        user = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")
        hide = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none /tmp && exec "$@"', "sh")
        cases["uid without an entry"] = ({}, ("env", "-u", "HOME", "-u", "XDG_CACHE_HOME", *user))
        if not folder.absolute().is_relative_to("/tmp"):  # noqa: S108 - it is hidden
            cases["no /tmp"] = ({}, hide)
    results = {}
    for name, (environment, prefix) in cases.items():
        task = make_task("predict", folder / name.replace(" ", "_").replace("/", ""))
        for path in (task.folder, *task.folder.rglob("*")):
            path.chmod(0o777)
        process = start(task, environment, prefix)
        results[name] = _faults(task, process.wait(_LIMIT_S), name)
    return results


def _check_videos(folder: Path, count: int, seconds: int) -> str:
    videos = sorted((folder / "out").glob("*"))
    if len(videos) != count:
        return f"{len(videos)} outputs, expected {count}"
    try:
        durations = [float(probe(path).duration_s) for path in videos]
    except TalkingHeadError as error:
        return str(error)
    wrong = [duration for duration in durations if abs(duration - seconds) > 0.1]
    return f"an output lasts {wrong[0]} s, expected {seconds}" if wrong else ""


def _check_corpus(folder: Path) -> str:
    try:
        clips = json.loads((folder / "out/manifest.json").read_text())["clips"]
    except (OSError, ValueError) as error:
        return f"no manifest: {error}"
    found = [clip["id"] for clip in clips]
    expected = [f"anna/{number}" for number in range(6)]
    files = sorted((folder / "out/clips").rglob("*.safetensors"))
    is_same = found == expected and len(files) == len(expected)
    return "" if is_same else f"clips {found}, {len(files)} files"


def _check_run(folder: Path) -> str:
    from talkinghead.models.tensor_files import read_plain_tensors

    checkpoints = list(folder.rglob("last.ckpt"))
    if not checkpoints:
        return "no checkpoint"
    newest = max(checkpoints, key=lambda path: path.stat().st_mtime)
    iteration = read_plain_tensors(newest)["iteration"]
    runs = len(list((folder / "outputs/train/out").iterdir()))
    is_doubled = runs > 1 and len(checkpoints) > 1
    return (
        f"iteration {iteration}, {len(checkpoints)} runs" if iteration != 30 or is_doubled else ""
    )


def _temporary(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if ".tmp" in path.name]


def _tracebacks(task: Task) -> list[str]:
    log = (task.folder / "log.txt").read_text(errors="replace")
    return [f"{task.arguments[0]}: traceback in its log"] if "Traceback" in log else []
