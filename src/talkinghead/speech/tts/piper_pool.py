"""Piper processes that load a voice once and take sentences from a common queue."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import time
import wave
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Event, Lock, Thread
from typing import IO

import numpy as np

from talkinghead.concurrency import result_unless_cancelled
from talkinghead.errors import DependencyError, SpeechError
from talkinghead.media.atomic_file import temporary_folder
from talkinghead.types import FloatArray

log = logging.getLogger(__name__)

# Interval at which output and cancellation are checked.
_POLL_S = 0.02
# Processes that had nothing to do for this time are ended, except one.
_IDLE_S = 60.0
# End of the last message of a process whose sentence gave no speech (unknown symbols).
_NO_SPEECH = "# channels not specified"


@dataclass(eq=False)
class _Job:
    sentence: str
    cancel: Event = field(default_factory=Event)
    speech: Future[FloatArray] = field(default_factory=Future)


@dataclass(eq=False)
class _Worker:
    """A thread and its Piper process; None while the process is started."""

    process: PiperProcess | None = None


class PiperPool:
    """A pool of Piper processes that speak the sentences of concurrent callers in order of arrival.

    The pool starts with one process. While there are more callers than processes, another process
    is started, up to `max_processes`; it takes sentences only once its voice is loaded. Processes
    that are idle for a minute are ended, except one.

    Args:
        command: Piper's command without `--output-dir`.
        max_processes: Maximum number of processes.
        timeout_s: Maximum time in seconds for a sentence; for the first, including loading.

    Attributes:
        is_closed: Whether `close` was called.

    Raises:
        DependencyError: The command cannot be run.
    """

    def __init__(self, command: Sequence[str], max_processes: int, timeout_s: float) -> None:
        self._command, self._timeout_s = command, timeout_s
        self._max_processes = max_processes
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = Lock()
        self._num_callers = 0
        # Last time at which all processes were needed, on the clock of `time.monotonic`.
        self._needed_s = time.monotonic()
        self.is_closed = False
        worker = _Worker(PiperProcess(command))
        self._workers = [worker]
        self._run_in_thread(worker)

    def pids(self) -> list[int]:
        """Return the identifiers of the running processes."""
        with self._lock:
            processes = [worker.process for worker in self._workers]
        return [process.pid for process in processes if process and process.is_running]

    def speak(self, sentence: str, cancel: Event) -> FloatArray | None:
        """Return the speech of a sentence, or None as soon as `cancel` is set.

        Raises:
            SpeechError: Piper failed or exceeded the timeout, or the pool was closed.
        """
        job = _Job(sentence, cancel)
        with self._lock:
            if self.is_closed:
                raise _closed()
            self._num_callers += 1
            if len(self._workers) < min(self._num_callers, self._max_processes):
                self._workers.append(_Worker())
                # A new process must load the voice before its first sentence. It therefore gets a
                # copy of the sentence whose result is discarded, and a loaded process speaks it.
                self._run_in_thread(self._workers[-1], _Job(sentence))
            self._jobs.put(job)
        try:
            return result_unless_cancelled(job.speech, cancel)
        finally:
            with self._lock:
                if self._num_callers >= len(self._workers):
                    self._needed_s = time.monotonic()
                self._num_callers -= 1

    def close(self) -> None:
        """End all processes; callers that wait for speech get a SpeechError."""
        with self._lock:
            self.is_closed = True
            workers, self._workers = self._workers, []
            with suppress(Empty):
                while True:
                    if (job := self._jobs.get_nowait()) is not None:
                        _fail(job, _closed())
            for _ in workers:
                self._jobs.put(None)
        for worker in workers:
            if worker.process is not None:
                worker.process.end()

    def _run_in_thread(self, worker: _Worker, warm_up: _Job | None = None) -> None:
        Thread(target=self._work, args=(worker, warm_up), name="piper", daemon=True).start()

    def _work(self, worker: _Worker, job: _Job | None) -> None:
        """Speak sentences until the pool is closed or the worker is idle."""
        while True:
            if job is not None:
                self._speak(worker, job)
            job = self._next_job(worker)
            if job is None:
                break
        if worker.process is not None:
            worker.process.end()

    def _next_job(self, worker: _Worker) -> _Job | None:
        while not self._remove_unneeded(worker):
            with suppress(Empty):
                return self._jobs.get(timeout=_IDLE_S)
        return None

    def _remove_unneeded(self, worker: _Worker) -> bool:
        """Remove the worker, and return True, if fewer workers have sufficed for `_IDLE_S`."""
        with self._lock:
            is_needed = time.monotonic() - self._needed_s < _IDLE_S
            if self.is_closed or is_needed or len(self._workers) < 2 or not self._jobs.empty():
                return False
            self._workers.remove(worker)
            return True

    def _speak(self, worker: _Worker, job: _Job) -> None:
        if job.cancel.is_set() or not job.speech.set_running_or_notify_cancel():
            return
        try:
            process = self._started(worker)
            process.write(job.sentence)
            speech = self._wait(process, job)
            if speech is not None:
                job.speech.set_result(speech)
            elif not self.is_closed:
                # Start the next process now, so that the voice is loaded before the next sentence.
                self._started(worker)
        except Exception as error:  # noqa: BLE001 - raised again in the caller
            _fail(job, _closed() if self.is_closed else error)
            log.debug("piper failed on %r: %s", job.sentence, error)

    def _started(self, worker: _Worker) -> PiperProcess:
        """Return the worker's process; start it if it does not run."""
        if worker.process is None or not worker.process.is_running:
            process = PiperProcess(self._command)
            with self._lock:
                worker.process = process
            # `close` ends only the processes that it finds.
            if self.is_closed:
                process.end()
        return worker.process

    def _wait(self, process: PiperProcess, job: _Job) -> FloatArray | None:
        """Return the speech, or None if the sentence is cancelled and takes too long.

        A cancelled sentence may take as long as the process took to load the voice: if the process
        were ended at once, the next sentence would have to wait that long for a new process.
        """
        until_s, is_cancelled = time.monotonic() + self._timeout_s, False
        while time.monotonic() < until_s:
            speech = process.read(_POLL_S)
            if speech is not None:
                return speech
            if job.cancel.is_set() and not is_cancelled:
                is_cancelled = True
                if process.load_s is not None:
                    until_s = min(until_s, time.monotonic() + process.load_s)
        process.end()
        if is_cancelled:
            return None
        raise SpeechError(
            f"piper took longer than {self._timeout_s:g} s for {job.sentence[:40]!r}: raise "
            "tts.timeout_s, or choose a smaller voice"
        )


class PiperProcess:
    """A running Piper process that reads lines of text and writes one audio file per line.

    Attributes:
        pid: Identifier of the process.
        load_s: Time in seconds from the start to the first speech; None before it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.load_s: float | None = None
        self._started_s = time.monotonic()
        self._folder = temporary_folder()
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - no shell is used
                [*command, "--output-dir", self._folder.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONUTF8": "1"},
                encoding="utf-8",
                errors="replace",
                # Start a new session, so that Ctrl-C does not stop Piper before the caller stops.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # On Windows.
            )
        except OSError as error:
            self._folder.cleanup()
            raise DependencyError(f"{command[0]}: cannot be run ({error.strerror})") from error
        self.pid = self._popen.pid
        self._messages: SimpleQueue[str | None] = SimpleQueue()
        self._last_message = ""
        assert self._popen.stderr is not None
        Thread(target=_read_lines, args=(self._popen.stderr, self._messages), daemon=True).start()
        self.end = weakref.finalize(self, _end, self._popen, self._folder)

    @property
    def is_running(self) -> bool:
        """Whether the process can take a sentence."""
        return self.end.alive and self._popen.poll() is None

    def write(self, sentence: str) -> None:
        """Pass a sentence to the process."""
        assert self._popen.stdin is not None
        # If the process has ended, `read` raises an error with the process's last message.
        with suppress(BrokenPipeError, ValueError):
            self._popen.stdin.write(sentence + "\n")
            self._popen.stdin.flush()

    def read(self, timeout_s: float) -> FloatArray | None:
        """Return the speech of the next sentence, or None if the speech is not complete yet.

        Raises:
            SpeechError: The process has ended.
        """
        try:
            line = self._messages.get(timeout=timeout_s)
        except Empty:
            return None
        if line is None:
            self.end()
            if _NO_SPEECH in self._last_message:
                return np.zeros(0, np.float32)
            raise SpeechError(
                f"piper ended: {self._last_message or 'no error message'}; check the voice, "
                "or choose tts=espeak"
            )
        self._last_message = line.strip()
        name = path_in(self._folder.name, line)
        if name is None:
            return None
        path = Path(name)
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        path.unlink()
        if self.load_s is None:
            self.load_s = time.monotonic() - self._started_s
        return samples.astype(np.float32) / np.float32(2**15)


def path_in(folder: str, line: str) -> str | None:
    """Return the path of the audio file in `folder` that a line of Piper's log names, or None."""
    match = re.search(re.escape(folder) + r"[/\\]\S+\.wav", line)
    return match and match[0]


def _fail(job: _Job, error: Exception) -> None:
    if job.speech.running() or job.speech.set_running_or_notify_cancel():
        job.speech.set_exception(error)


def _closed() -> SpeechError:
    return SpeechError("the Piper voice was closed: speak again to start it anew")


def _read_lines(stream: IO[str], messages: SimpleQueue[str | None]) -> None:
    for line in stream:
        messages.put(line)
    messages.put(None)


def _end(process: subprocess.Popen[str], folder: TemporaryDirectory[str]) -> None:
    process.kill()
    process.wait()
    with suppress(BrokenPipeError):
        if process.stdin is not None:
            process.stdin.close()
    folder.cleanup()
