"""Several predictions with one loaded model: a failed job does not stop the others."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.predict.predictor import LipSyncPredictor, RenderReport

log = logging.getLogger(__name__)

COLUMNS = ("face", "audio", "output")


@dataclass(frozen=True)
class Job:
    """One video to make: a face's file, a speech's file and the file to write."""

    face: Path
    audio: Path
    output: Path


def make_jobs(
    face: str | None,
    audio: str | None,
    output: str | None,
    jobs: str | Path | Sequence[Mapping[str, str]] | None,
) -> list[Job]:
    """What a command line asks for: one job, or those of a CSV file or a list.

    Args:
        face: of the one job.
        audio: of the one job.
        output: of the one job.
        jobs: a CSV file with the columns face, audio and output (paths relative to its own folder),
            or a list of mappings with these keys.

    Raises:
        UsageError: neither or both were given, a column is missing, there is no job, or two write
            the same file.
    """
    single = {"face": face, "audio": audio, "output": output}
    missing = [name for name, value in single.items() if value is None]
    if jobs is None:
        if missing:
            raise UsageError(
                f"{' and '.join(f'{name}=FILE' for name in missing)} must be given: "
                "face=photo.jpg audio=speech.wav output=talking.mp4, or jobs=list.csv for several"
            )
        return [_job(single, "the command line", Path())]
    if len(missing) < len(single):
        raise UsageError("give either face=, audio= and output=, or jobs=; both were given")
    rows, name, folder = _read_rows(jobs)
    listed = [_job(row, f"{name}, job {number}", folder) for number, row in enumerate(rows, 1)]
    if not listed:
        raise UsageError(f"{name}: there is no job in it; expected rows of {', '.join(COLUMNS)}")
    outputs = [job.output.resolve() for job in listed]
    twice = next((path for path in outputs if outputs.count(path) > 1), None)
    if twice is not None:
        raise UsageError(f"{name}: two jobs write to {twice}; give each job an output of its own")
    return listed


def run_jobs(
    predictor: LipSyncPredictor, jobs: Sequence[Job], *, crf: int = 18, preset: str = "veryfast"
) -> list[RenderReport]:
    """Renders every job, with a progress bar.

    Raises:
        TalkingHeadError: the job's own error where there is one job; of several, how many failed,
            after all were tried.
    """
    reports: list[RenderReport] = []
    failures: list[TalkingHeadError | OSError] = []
    for number, job in enumerate(jobs, 1):
        label = job.output.name if len(jobs) == 1 else f"{number}/{len(jobs)} {job.output.name}"
        try:
            reports.append(_run_job(predictor, job, label, crf, preset))
        except (TalkingHeadError, OSError) as error:
            if len(jobs) == 1:
                raise
            failures.append(error)
            log.error("%s failed: %s", job.output, " ".join(str(error).split()))
    if failures:
        raise TalkingHeadError(
            f"{len(failures)} of {len(jobs)} jobs failed (see above), the others are done: "
            "mend those and run them again"
        )
    return reports


def _run_job(
    predictor: LipSyncPredictor, job: Job, label: str, crf: int, preset: str
) -> RenderReport:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _FramesPerSecond(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        report = predictor.render(
            job.face,
            job.audio,
            job.output,
            crf=crf,
            preset=preset,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        elapsed_s = bar.tasks[0].elapsed or 0.0
    log.info(
        "%s: %d frames, %.2f s, %.0f frames/s",
        report.path,
        report.num_frames,
        report.duration_s,
        report.num_frames / max(elapsed_s, 1e-6),
    )
    if report.num_frames_without_face:
        log.warning(
            "%s: no face in %d of %d frames; they were passed through untouched",
            job.face,
            report.num_frames_without_face,
            report.num_frames,
        )
    return report


class _FramesPerSecond(ProgressColumn):
    """The speed of a progress bar's task."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f} frames/s")


def _read_rows(
    jobs: str | Path | Sequence[Mapping[str, str]],
) -> tuple[Sequence[Mapping[str, str | None]], str, Path]:
    """The rows, what to call them in errors, and the folder that their paths are relative to."""
    if not isinstance(jobs, str | Path):
        return jobs, "jobs", Path()
    path = Path(jobs)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file)), str(path), path.parent
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV text"
        raise UsageError(
            f"jobs={path} cannot be read ({reason}); expected a CSV of {', '.join(COLUMNS)}"
        ) from error


def _job(row: Mapping[str, str | None], name: str, folder: Path) -> Job:
    values = {column: (row.get(column) or "").strip() for column in COLUMNS}
    missing = [column for column, value in values.items() if not value]
    if missing:
        raise UsageError(f"{name}: {', '.join(missing)} is missing; expected {', '.join(COLUMNS)}")
    return Job(**{column: folder / value for column, value in values.items()})
