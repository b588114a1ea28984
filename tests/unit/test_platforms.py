"""Tests of the code for platforms other than Linux, as far as Linux can run it."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from talkinghead import concurrency
from talkinghead.media import atomic_file
from talkinghead.speech.tts import piper_pool

WITHOUT_POSIX = """
import os, pkgutil, signal, sys, types
import av, cv2, hydra, joblib, lightning, multiprocessing, pebble, rich.progress, scipy, torch
import aiortc, fastapi, gradio, torchmetrics, uvicorn, wandb
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None  # An import raises ImportError.
for name in ("sched_getaffinity", "getuid", "getpriority", "setpriority", "nice", "fork", "killpg"):
    delattr(os, name)
for name in ("pthread_sigmask", "SIGHUP", "SIGKILL", "alarm"):
    delattr(signal, name)
import talkinghead
for module in pkgutil.walk_packages(talkinghead.__path__, "talkinghead."):
    if not module.name.startswith(("talkinghead.integrations", "talkinghead.__main__")):
        __import__(module.name)
print(len([name for name in sys.modules if name.startswith("talkinghead.")]))
"""


@pytest.mark.slow
def test_all_modules_are_imported_without_posix_functions():
    pytest.importorskip("fastapi", reason="needs the extra live")
    pytest.importorskip("gradio", reason="needs the extra demo")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 200


def test_cores_are_counted_without_an_affinity(monkeypatch):
    assert concurrency.num_available_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert concurrency.num_available_cores() == 12


def test_processes_ignore_interrupts_without_a_signal_mask(monkeypatch):
    with concurrency.interrupts_blocked():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    concurrency.ignore_interrupts()
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.setattr(sys, "platform", "win32")
    before = signal.getsignal(signal.SIGINT)
    try:
        with concurrency.interrupts_blocked():
            pass
        concurrency.ignore_interrupts()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_processes_get_no_signal_on_windows(monkeypatch):
    def missing(path, *arguments, **options):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    signals = []
    monkeypatch.setattr(os, "kill", lambda *arguments: signals.append(arguments))
    assert atomic_file._start_of(os.getpid()) == 1
    assert signals == [(os.getpid(), 0)]
    monkeypatch.setattr(sys, "platform", "win32")
    assert atomic_file._start_of(os.getpid()) == 1
    assert len(signals) == 1


def test_priority_is_lowered_except_on_windows(monkeypatch):
    steps = []
    monkeypatch.setattr(os, "nice", steps.append)
    concurrency.lower_process_priority()
    assert steps == [10]
    monkeypatch.delattr(os, "nice")
    monkeypatch.setattr(sys, "platform", "win32")
    concurrency.lower_process_priority()


def test_port_in_use_is_refused_on_windows(monkeypatch):
    run_server = pytest.importorskip(
        "talkinghead.live.server.run_server", reason="needs the extra live"
    )
    settings = SimpleNamespace(host="127.0.0.1", port=0)
    option = (socket.SOL_SOCKET, socket.SO_REUSEADDR)
    with run_server._listen(settings) as listener:
        assert listener.getsockopt(*option)
    monkeypatch.setattr(sys, "platform", "win32")
    with run_server._listen(settings) as listener:
        assert not listener.getsockopt(*option)


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_paths_of_piper_have_separators_of_the_platform(separator):
    folder = separator.join(["C:", "Temp (1)", "a b"])
    line = f"INFO:piper:Wrote {folder}{separator}42.wav\n"
    assert piper_pool.path_in(folder, line) == f"{folder}{separator}42.wav"
    assert piper_pool.path_in(folder, f"Loaded {folder}{separator}voice.onnx") is None


def test_signals_of_the_platform_are_used(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    spec = importlib.util.find_spec("talkinghead.concurrency")
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert copy.TERMINATION_SIGNALS == (signal.SIGTERM,)
