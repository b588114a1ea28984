"""Rendering of a list of jobs, with progress bars."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Annotated, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    track,
)
from rich.text import Text

from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.predict.batch.finished_outputs import find_finished
from talkinghead.predict.batch.jobs import Job
from talkinghead.predict.batch.remote_files import file_name
from talkinghead.predict.batch.workers import (
    JobProgress,
    JobRunner,
    Outcome,
    Speaker,
    run_in_workers,
)
from talkinghead.predict.prediction import RenderReport
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.progress_bar import stderr_console
from talkinghead.value_rules import Range

log = logging.getLogger(__name__)

_ALL = "all jobs"
# With more finished outputs, only their number is logged.
_MAX_LISTED = 20


def run_jobs(
    make_predictor: Callable[[], LipSyncPredictor],
    jobs: Sequence[Job],
    *,
    workers: Annotated[int, Range(1, 1024)] = 1,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    make_speaker: Callable[[], Speaker] | None = None,
    on_outcome: Callable[[Job, Outcome], None] | None = None,
    **options: Any,
) -> list[RenderReport]:
    """Render every job with progress bars; a failed job does not stop the other jobs.

    Args:
        make_predictor: returns a process's predictor; with several workers it must be picklable.
        jobs: the jobs.
        workers: Number of processes, each with a predictor and a part of the cores.
        settings: if given, existing outputs of the same inputs and settings are kept.
        overwrite: Make existing outputs again.
        make_speaker: returns the function that speaks the texts of jobs; with several workers it
            must be picklable.
        on_outcome: called in this process with each job that has ended and its outcome.
        **options: keyword arguments of `LipSyncPredictor.render`.

    Returns:
        The reports of the rendered jobs, in the order of the jobs. The path in the report of a
        remote output is that of the local copy, which was removed.

    Raises:
        TalkingHeadError: The predictor cannot be made, the only job failed, or some of several jobs
            failed.
        UsageError: `workers` is less than 1.

    Example:
        >>> jobs = make_jobs(None, None, None, "jobs.csv")
        >>> run_jobs(LipSyncPredictor.from_checkpoint, jobs, workers=2)
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}; expected at least 1")
    runner = JobRunner(make_predictor, options, settings, overwrite, make_speaker)
    report = on_outcome or (lambda job, outcome: None)
    unfinished = list(jobs)
    if settings is not None and not overwrite:
        unfinished = _leave_out_finished(jobs, settings, report)
    outcomes = _run_with_bars(runner, unfinished, workers, report, len(jobs))
    return _reports(outcomes, len(jobs))


def _run_with_bars(
    runner: JobRunner,
    jobs: Sequence[Job],
    workers: int,
    report: Callable[[Job, Outcome], None],
    num_all: int,
) -> list[Outcome]:
    """Render jobs, and return their outcomes in order; the error of a single job is raised."""
    outcomes: dict[int, Outcome] = {}
    with _Bars(jobs) as bars:
        num_workers = min(workers, len(jobs))
        run = partial(run_in_workers, num_workers=num_workers) if num_workers > 1 else _run_here
        with closing(run(runner, jobs, progress=bars.show)) as ended:
            for number, outcome in ended:
                outcomes[number] = outcome
                bars.finish(number)
                report(jobs[number], outcome)
                if outcome.error is not None and num_all == 1:
                    raise outcome.error
                with bars.hidden():
                    _log_outcome(jobs[number], outcome)
                _drop_tracebacks(outcome.error)
    return [outcomes[number] for number in sorted(outcomes)]


def _leave_out_finished(
    jobs: Sequence[Job], settings: Mapping[str, Any], report: Callable[[Job, Outcome], None]
) -> list[Job]:
    """Return the jobs whose outputs do not exist yet."""
    finished, unfinished = [], []
    checked = find_finished(jobs, settings)
    console = stderr_console()
    with closing(checked):
        shown = track(checked, "checking outputs", len(jobs), console=console, transient=True)
        for job, is_finished in zip(jobs, shown, strict=True):
            if is_finished:
                report(job, Outcome())
                finished.append(job)
            else:
                unfinished.append(job)
    if len(finished) > _MAX_LISTED:
        text = "%d of %d outputs exist already, from the same inputs and settings"
        log.info(text, len(finished), len(jobs))
    else:
        for job in finished:
            log.info("%s: exists already, from the same inputs and settings", job.output)
    return unfinished


def _run_here(
    runner: JobRunner, jobs: Sequence[Job], progress: JobProgress
) -> Generator[tuple[int, Outcome]]:
    for number, job in enumerate(jobs):
        progress(number, 0, 0)
        yield number, runner.run(job, partial(progress, number))


def _log_outcome(job: Job, outcome: Outcome) -> None:
    report = outcome.report
    if outcome.error is not None:
        log.error("%s failed: %s", job.output, outcome.message)
        log.debug("%s: traceback of the failure", job.output, exc_info=outcome.error)
    elif report is None:
        log.info("%s: exists already, from the same inputs and settings", job.output)
    else:
        frames, duration_s = report.num_frames, report.duration_s
        fps = frames / max(outcome.elapsed_s, 1e-6)
        log.info("%s: %d frames, %.2f s, %.0f frames/s", job.output, frames, duration_s, fps)
        if unchanged := report.num_frames_without_face:
            text = "%s: no face in %d of %d frames; they were left unchanged"
            log.warning(text, job.face, unchanged, frames)


def _drop_tracebacks(error: BaseException | None) -> None:
    """Drop the tracebacks of an error, which keep the tensors of a failed job in memory."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _reports(outcomes: Sequence[Outcome], num_jobs: int) -> list[RenderReport]:
    num_failed = sum(outcome.error is not None for outcome in outcomes)
    if num_failed:
        raise TalkingHeadError(
            f"{num_failed} of {num_jobs} jobs failed (see above), the others are done: "
            "correct those and run the same command again, which renders only missing outputs"
        )
    return [outcome.report for outcome in outcomes if outcome.report is not None]


class _Bars(Progress):
    """Progress bars on stderr: one for each running job, and one for a list of several jobs."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _FramesPerSecond(),
            TimeRemainingColumn(),
            console=stderr_console(),
            transient=True,
            disable=not stderr_console().is_terminal,
        )
        self._jobs = jobs
        self._bars: dict[int, TaskID] = {}
        self._all = self.add_task(_ALL, total=len(jobs), visible=len(jobs) > 1)

    def show(self, number: int, done: int, total: int) -> None:
        """Show the number of written frames of a job; a total of 0 means that it is unknown."""
        if number not in self._bars:
            self._bars[number] = self.add_task(file_name(self._jobs[number].output), total=None)
        self.update(self._bars[number], completed=done, total=total or None)

    def finish(self, number: int) -> None:
        """Remove the bar of a job that has ended."""
        if number in self._bars:
            self.remove_task(self._bars.pop(number))
        self.advance(self._all)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bars while lines are logged."""
        self.stop()
        try:
            yield
        finally:
            self.start()


class _FramesPerSecond(ProgressColumn):
    """A column for the speed of a job in frames per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.description == _ALL else f"{task.speed or 0:.0f} frames/s")
