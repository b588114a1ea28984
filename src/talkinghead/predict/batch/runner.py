"""Several predictions in one run: a failed one does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.predict.batch.jobs import Job
from talkinghead.predict.batch.workers import JobRunner, Outcome, Speak, run_in_workers
from talkinghead.predict.predictor import LipSyncPredictor, RenderReport

log = logging.getLogger(__name__)

_ALL = "all jobs"


def run_jobs(
    make_predictor: Callable[[], LipSyncPredictor],
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    make_speak: Callable[[], Speak] | None = None,
    **options: Any,
) -> list[RenderReport]:
    """Renders every job, with a progress bar for each that is at work.

    Args:
        make_predictor: called when the first job needs it, in each process; with several it must be
            something that can be sent there.
        jobs: what to render.
        workers: Number of processes, each with a predictor and a part of the cores.
        settings: what outputs depend on besides their inputs. Where given, a job whose output was
            made from the same is left as it is.
        overwrite: Make existing outputs again.
        make_speak: as `make_predictor`, for jobs with a text.
        **options: of `LipSyncPredictor.render`.

    Returns:
        Of those that were rendered, in their order.

    Raises:
        TalkingHeadError: no predictor can be made; the job's own error where there is one job; of
            several, how many failed, after all were tried.
        UsageError: fewer than one worker.
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}; expected at least 1")
    runner = JobRunner(make_predictor, options, settings, overwrite, make_speak)
    outcomes: dict[int, Outcome] = {}
    with _Bars(jobs) as bars:
        ends = (
            run_in_workers(runner, jobs, min(workers, len(jobs)), bars.advance)
            if min(workers, len(jobs)) > 1
            else _run_here(runner, jobs, bars.advance)
        )
        with closing(ends):
            for number, outcome in ends:
                outcomes[number] = outcome
                bars.finish(number)
                if outcome.error is not None and len(jobs) == 1:
                    raise outcome.error
                with bars.hidden():
                    _tell(jobs[number], outcome)
    return _reports([outcomes[number] for number in sorted(outcomes)])


def _run_here(
    runner: JobRunner, jobs: Sequence[Job], progress: Callable[[int, int, int], None]
) -> Generator[tuple[int, Outcome]]:
    for number, job in enumerate(jobs):
        progress(number, 0, 0)
        yield number, runner.run(job, partial(progress, number))


def _tell(job: Job, outcome: Outcome) -> None:
    report = outcome.report
    if outcome.error is not None:
        log.error("%s failed: %s", job.output, " ".join(str(outcome.error).split()))
    elif report is None:
        log.info("%s: is there already, from the same inputs and settings", job.output)
    else:
        speed = report.num_frames / max(outcome.elapsed_s, 1e-6)
        log.info(
            "%s: %d frames, %.2f s, %.0f frames/s",
            report.path,
            report.num_frames,
            report.duration_s,
            speed,
        )
        if report.num_frames_without_face:
            log.warning(
                "%s: no face in %d of %d frames; they were passed through untouched",
                job.face,
                report.num_frames_without_face,
                report.num_frames,
            )


def _reports(outcomes: Sequence[Outcome]) -> list[RenderReport]:
    num_failed = sum(outcome.error is not None for outcome in outcomes)
    if num_failed:
        raise TalkingHeadError(
            f"{num_failed} of {len(outcomes)} jobs failed (see above), the others are done: "
            "mend those and run the same command again, it does only what is missing"
        )
    return [outcome.report for outcome in outcomes if outcome.report is not None]


class _Bars:
    """On stderr: a bar for each job at work, and one for the whole list where there are several."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _FramesPerSecond(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._jobs = jobs
        self._bars: dict[int, TaskID] = {}
        self._all = self._progress.add_task(_ALL, total=len(jobs), visible=len(jobs) > 1)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, number: int, done: int, total: int) -> None:
        """A job has written so many of its frames; of 0 the number is not known yet."""
        if number not in self._bars:
            name = self._jobs[number].output.name
            self._bars[number] = self._progress.add_task(name, total=None)
        self._progress.update(self._bars[number], completed=done, total=total or None)

    def finish(self, number: int) -> None:
        """A job has ended, however that was."""
        if number in self._bars:
            self._progress.remove_task(self._bars.pop(number))
        self._progress.advance(self._all)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Lines that are logged in here do not run into the bars."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


class _FramesPerSecond(ProgressColumn):
    """The speed of a job."""

    def render(self, task: Task) -> Text:
        return Text("" if task.description == _ALL else f"{task.speed or 0:.0f} frames/s")
