"""Several processes, each with a predictor of its own, that take jobs from one list."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

import cv2
import torch

from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.predict.audio.audio_source import SpeechInput, SpeechStream
from talkinghead.predict.batch.jobs import KEY_TAG, Job, is_done, job_key
from talkinghead.predict.output.mux import Progress
from talkinghead.predict.predictor import LipSyncPredictor, RenderReport

Speak: TypeAlias = Callable[[str], SpeechStream]
"""Speaks a text."""

_PATIENCE_S = 20
"""How long a process may take to remove its unfinished file."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: what was written in what time, or None of it for what was there already."""

    report: RenderReport | None = None
    elapsed_s: float = 0.0
    error: TalkingHeadError | OSError | None = None


@dataclass
class JobRunner:
    """Does one job after another with one predictor, which is made when it is first needed.

    So is the voice, for jobs with a text.

    Attributes:
        make_predictor: can be sent to another process.
        make_speak: so can this; None where no job has a text.
        options: of `LipSyncPredictor.render`.
        settings: what outputs depend on besides their inputs (see `job_key`); None leaves no key in
            them.
        overwrite: whether what is done already is done again.
    """

    make_predictor: Callable[[], LipSyncPredictor]
    options: Mapping[str, Any]
    settings: Mapping[str, Any] | None = None
    overwrite: bool = False
    make_speak: Callable[[], Speak] | None = None
    predictor: LipSyncPredictor | None = None
    speak: Speak | None = None

    def run(self, job: Job, progress: Progress) -> Outcome:
        """Does the job; an error that another job need not have is its outcome.

        Raises:
            TalkingHeadError: the predictor, or the voice, cannot be made.
        """
        key = None if self.settings is None else job_key(job, self.settings)
        if not self.overwrite and is_done(job, key):
            return Outcome()
        self.predictor = self.predictor or self.make_predictor()
        started = time.monotonic()
        try:
            report = self.predictor.render(
                job.face,
                self._speech(job),
                job.output,
                tags={KEY_TAG: key} if key else None,
                progress=progress,
                **self.options,
            )
        except (TalkingHeadError, OSError) as error:
            return Outcome(error=error)
        return Outcome(report, time.monotonic() - started)

    def _speech(self, job: Job) -> SpeechInput:
        if job.audio is not None:
            return job.audio
        if self.speak is None:
            if self.make_speak is None:
                raise UsageError(f"{job.output}: has a text, and there is nothing that speaks")
            self.speak = self.make_speak()
        return self.speak(job.text or "")


def run_in_workers(
    runner: JobRunner,
    jobs: Sequence[Job],
    num_workers: int,
    progress: Callable[[int, int, int], None],
) -> Generator[tuple[int, Outcome]]:
    """Does the jobs in processes that share the cores.

    Closed early, by Ctrl-C too, it stops them all, and each removes its unfinished file.

    Args:
        runner: sent to every process; without a predictor.
        jobs: in the order in which they are begun.
        num_workers: processes at a time, at least 1.
        progress: told a job's number in `jobs`, its frames written, and all its frames.

    Yields:
        A job's number and how it ended, in the order in which they end. A process that dies takes
        its job with it, and another takes its place.

    Raises:
        TalkingHeadError: a predictor cannot be made.
        RuntimeError: something else went wrong in a process: a bug.
    """
    num_threads = max(1, len(os.sched_getaffinity(0)) // num_workers)
    waiting = deque(enumerate(jobs))
    workers: dict[Connection, _Worker] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < num_workers:
                worker = _Worker(runner, num_threads)
                workers[worker.connection] = worker
                worker.begin(*waiting.popleft())
            for connection in wait(list(workers)):
                worker = workers[connection]  # type: ignore[index]
                message = worker.receive()
                if isinstance(message, Exception):
                    raise message
                if not isinstance(message, Outcome):
                    progress(worker.number, *message)
                    continue
                number = worker.number
                if waiting and worker.is_alive:
                    worker.begin(*waiting.popleft())
                else:
                    workers.pop(worker.connection).dismiss()
                yield number, message
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            worker.dismiss()


class _Worker:
    """A process, this side's end of the pipe to it, and the number of the job that it is at."""

    def __init__(self, runner: JobRunner, num_threads: int) -> None:
        # Spawned, not forked: this process holds threads (a progress bar), whose locks would be
        # copied.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, runner, num_threads))
        self.number, self.is_alive = -1, True
        # A terminal's Ctrl-C goes to every process; this one then tells the others, which would
        # print tracebacks of their own. What is blocked here is blocked in the new process too.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # The end of the process is then the end of the pipe.
        theirs.close()

    def begin(self, number: int, job: Job) -> None:
        self.number = number
        with suppress(BrokenPipeError):  # `receive` tells of its death
            self.connection.send(job)

    def receive(self) -> Outcome | tuple[int, int] | Exception:
        """How far the job is, how it ended, or why no job can be done."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.is_alive = False
            return Outcome(
                error=TalkingHeadError(
                    "its process died (killed, or out of memory); run it again with fewer workers="
                )
            )

    def dismiss(self) -> None:
        """Without a pipe it ends by itself."""
        self.connection.close()
        self.process.join(_PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection: Connection, runner: JobRunner, num_threads: int) -> None:
    """A worker's life: jobs come through the pipe until it is closed."""
    # Raised wherever it is, so that an unfinished file is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(num_threads)
    cv2.setNumThreads(num_threads)

    def progress(done: int, total: int) -> None:
        try:
            connection.send((done, total))
        except OSError as error:  # whoever wanted the file has gone
            raise KeyboardInterrupt from error

    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        while True:
            job = connection.recv()
            try:
                answer: Outcome | Exception = runner.run(job, progress)
            except Exception as error:  # noqa: BLE001 - to be raised where it is seen
                answer = _to_send(error)
            connection.send(answer)


def _to_send(error: Exception) -> Exception:
    """Our own error where one is at the root; else what can be sent of a bug."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TalkingHeadError):
            return cause
        cause = cause.__cause__
    bug = RuntimeError(f"{type(error).__name__}: {error}")
    bug.add_note("".join(traceback.format_exception(error)))
    return bug
