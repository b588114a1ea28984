"""Collect the outcomes of jobs for `output_format=json`, and log next steps once."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from talkinghead.errors import TalkingHeadError
from talkinghead.paths import cache_dir
from talkinghead.predict.batch.jobs import Job
from talkinghead.predict.batch.workers import Outcome

log = logging.getLogger(__name__)

_NEXT_STEPS = """\
the video is %s
next: your own files    talkinghead predict face=photo.jpg audio=speech.wav output=talking.mp4
      a live face       talkinghead serve face=photo.jpg
      all options       talkinghead predict --help
      something wrong?  talkinghead doctor"""


class JobResults:
    """A context manager with the outcomes of jobs as JSON values, which it adds to errors.

    Example:
        >>> with JobResults() as results:
        ...     run_jobs(make_predictor, jobs, on_outcome=results.add)
        >>> results.entries
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def __enter__(self) -> JobResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, TalkingHeadError):
            error.completed = self.entries
        elif error is None and [entry["state"] for entry in self.entries] == ["written"]:
            show_next_steps(Path(self.entries[0]["output"]))

    def add(self, job: Job, outcome: Outcome) -> None:
        """Add the outcome of a job."""
        entry: dict[str, Any] = {"output": str(job.output), "state": "exists"}
        if outcome.error is not None:
            entry |= {"state": "failed", "message": outcome.message}
        elif (report := outcome.report) is not None:
            entry |= {
                "state": "written",
                "num_frames": report.num_frames,
                "num_frames_without_face": report.num_frames_without_face,
                "duration_s": float(report.duration_s),
                "fps": float(report.fps),
                "elapsed_s": round(outcome.elapsed_s, 3),
            }
        self.entries.append(entry)


def show_next_steps(output: Path) -> None:
    """Log where the first video of this user is and what to try next, once, to a terminal."""
    marker = cache_dir() / "first_video"
    if not sys.stdout.isatty() or marker.exists():
        return
    log.info(_NEXT_STEPS, output.resolve())
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:  # The message is shown again next time.
        log.debug("cannot write %s", marker)
