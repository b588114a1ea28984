"""Rendering of jobs, in this process or in a pool of processes with one predictor each."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import Array, c_longlong
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

import cv2
import pebble
import torch

from talkinghead.concurrency import (
    exit_with_parent,
    ignore_interrupts,
    interrupts_blocked,
    num_available_cores,
    removing_unfinished_files,
)
from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.predict.audio.audio_source import SpeechInputs, SpeechStream
from talkinghead.predict.batch.finished_outputs import KEY_TAG, is_done, job_key
from talkinghead.predict.batch.jobs import Job, local_job
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.output.mux import Progress
from talkinghead.predict.prediction import RenderReport
from talkinghead.predict.predictor import LipSyncPredictor

Speaker: TypeAlias = Callable[[str], SpeechStream]
"""Function that speaks a text."""
JobProgress: TypeAlias = Callable[[int, int, int], None]
"""Callback that takes the index of a job, the number of written frames and of all frames."""

_POLL_S = 0.1
# Number of jobs that are scheduled although all processes are busy.
_NUM_AHEAD = 4
# Maximum time that a process may take to remove its unfinished file.
_STOP_TIMEOUT_S = 20.0


class WorkerError(RuntimeError):
    """Unexpected error in a worker process; the text starts with its type."""


@dataclass(frozen=True)
class Outcome:
    """Result of a job: a report, an error, or neither if the output existed already."""

    report: RenderReport | None = None
    elapsed_s: float = 0.0
    error: Exception | None = None

    @property
    def message(self) -> str:
        """The error in one line, with the type of an unexpected one; empty without an error."""
        if self.error is None:
            return ""
        text = str(self.error)
        if not isinstance(self.error, TalkingHeadError | OSError | WorkerError):
            text = f"{type(self.error).__name__}: {text}"
        return " ".join(text.split()).removesuffix(":")


@dataclass
class JobRunner:
    """A renderer of jobs that makes its predictor and its voice when they are first needed.

    The attributes are the arguments of `run_jobs`. For other processes, `make_predictor` and
    `make_speaker` must be picklable.
    """

    make_predictor: Callable[[], LipSyncPredictor]
    options: Mapping[str, Any]
    settings: Mapping[str, Any] | None = None
    overwrite: bool = False
    make_speaker: Callable[[], Speaker] | None = None
    predictor: LipSyncPredictor | None = None
    speaker: Speaker | None = None

    def run(self, job: Job, progress: Progress) -> Outcome:
        """Render a job, and return its error in the outcome.

        Raises:
            Exception: The predictor cannot be made.
        """
        key = None if self.settings is None else job_key(job, self.settings)
        if not self.overwrite and is_done(job, key):
            return Outcome()
        self.predictor = self.predictor or self.make_predictor()
        started = time.monotonic()
        try:
            options = self._options(job)
            with local_job(job) as local:
                report = self.predictor.render(
                    local.face,
                    self._speech(local),
                    local.output,
                    tags={KEY_TAG: key} if key else None,
                    progress=progress,
                    **options,
                )
        except Exception as error:  # noqa: BLE001 - an error of one job must not stop the others
            return Outcome(error=error)
        return Outcome(report, time.monotonic() - started)

    def _options(self, job: Job) -> dict[str, Any]:
        """Return the arguments of `render`, with the options that only this job has."""
        if not job.changes:
            return dict(self.options)
        options, changes = self.options.get("options") or SourceOptions(), dict(job.changes)
        if changes.get("face_select", "index") != "index":
            changes.setdefault("face_index", 0)  # The index belongs to the face_select of the list.
        return {**self.options, "options": replace(options, **changes)}

    def _speech(self, job: Job) -> SpeechInputs:
        if job.audio is not None:
            return job.audio
        if self.speaker is None:
            if self.make_speaker is None:
                raise UsageError(f"{job.output}: has a text, but no voice was given")
            self.speaker = self.make_speaker()
        return self.speaker(job.text or "")


def run_in_workers(
    runner: JobRunner, jobs: Sequence[Job], num_workers: int, progress: JobProgress
) -> Generator[tuple[int, Outcome]]:
    """Render jobs in a pool of processes that share the CPU cores.

    When the generator is closed early, all processes are stopped and remove their unfinished files.

    Yields:
        Index and outcome of each job, in the order in which they end. If a process dies, its job
        fails and another process is started.

    Raises:
        TalkingHeadError: A predictor cannot be made.
        WorkerError: A predictor cannot be made, because of an unexpected exception.
    """
    # Spawn processes: forking would copy locks that other threads hold, such as the progress bar.
    context = multiprocessing.get_context("spawn")
    # Number of written frames and number of all frames of each job. No lock is needed, because only
    # one process writes the two numbers of a job.
    counts = context.RawArray(c_longlong, 2 * len(jobs))
    num_threads = max(1, num_available_cores() // num_workers)
    pebble.CONSTS.term_timeout = _STOP_TIMEOUT_S
    shared = runner, counts, num_threads
    pool = pebble.ProcessPool(num_workers, 0, _start_worker, shared, context)
    waiting = iter(enumerate(jobs))
    numbers: dict[Future[Outcome], int] = {}

    def schedule(count: int) -> None:
        # Few jobs are scheduled ahead, because waiting for futures takes time for each of them.
        for number, job in islice(waiting, count):
            numbers[pool.schedule(_run_job, (number, job))] = number

    # Ctrl-C in a terminal sends SIGINT to every process, and the workers would print tracebacks.
    # The signal is therefore blocked while the workers start, because they inherit the signal mask.
    # This process handles Ctrl-C and stops the workers.
    try:
        with interrupts_blocked():
            schedule(num_workers + _NUM_AHEAD)
        while numbers:
            ended, _ = wait(numbers, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for number in numbers.values():
                if counts[2 * number]:
                    progress(number, counts[2 * number], counts[2 * number + 1])
            schedule(len(ended))
            for future in ended:
                yield numbers.pop(future), _outcome(future)
    finally:
        pool.stop()
        pool.join()


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except (pebble.ProcessExpired, BrokenProcessPool):
        reason = "its process died (killed, or out of memory)"
        return Outcome(error=TalkingHeadError(f"{reason}; run the job again with fewer workers="))


class _Worker:
    """State of a worker process."""

    runner: JobRunner
    counts: Array[c_longlong]


def _start_worker(runner: JobRunner, counts: Array[c_longlong], num_threads: int) -> None:
    ignore_interrupts()
    exit_with_parent()
    _Worker.runner, _Worker.counts = runner, counts
    torch.set_num_threads(num_threads)
    cv2.setNumThreads(num_threads)


def _run_job(number: int, job: Job) -> Outcome:
    """Render a job in a worker process."""

    def progress(done: int, total: int) -> None:
        _Worker.counts[2 * number + 1], _Worker.counts[2 * number] = total, done

    with removing_unfinished_files():
        try:
            outcome = _Worker.runner.run(job, progress)
        except Exception as error:
            raise _picklable(error) from error
    return outcome if outcome.error is None else Outcome(error=_picklable(outcome.error))


def _picklable(error: Exception) -> Exception:
    """Return the `TalkingHeadError` that caused an error, a system error or a `WorkerError`.

    A `WorkerError` has the traceback as a note.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TalkingHeadError):
            return cause
        cause = cause.__cause__
    if isinstance(error, OSError) and type(error).__module__ == "builtins":
        return error
    unexpected = WorkerError(f"{type(error).__name__}: {error}")
    unexpected.add_note("".join(traceback.format_exception(error)))
    return unexpected
