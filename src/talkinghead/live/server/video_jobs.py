"""Jobs that render videos: a bounded queue, and one process for each job."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import secrets
import shutil
import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pebble
from fastapi import UploadFile
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from talkinghead.concurrency import lower_process_priority
from talkinghead.errors import TalkingHeadError
from talkinghead.live.server.avatar_library import AvatarLibrary
from talkinghead.live.server.error_responses import ClientError, public_message
from talkinghead.live.server.server_settings import ServerSettings, VideoRunner, app_state
from talkinghead.live.server.uploads import UploadChecker
from talkinghead.predict.batch.jobs import Job

State = Literal["queued", "running", "done", "failed"]

_RETRY_AFTER_S = 60


class VideoState(BaseModel):
    """State of a video job."""

    id: str
    state: State
    progress: float = Field(description="Rendered fraction, 0 to 1.", examples=[0.4])
    error: str | None = Field(default=None, description="Why the job failed.")


@dataclass
class VideoJob:
    """A video to be rendered, in its own folder.

    Attributes:
        number: Number by which the process reports its progress.
        folder: Folder of the inputs and the output.
        future: Result of the process; None while the uploads are checked.
        ended_s: Time at which the job ended; None before.
    """

    number: int
    folder: Path
    future: Future[None] | None = None
    ended_s: float | None = None

    @property
    def output(self) -> Path:
        """The video file."""
        return self.folder / "video.mp4"


class VideoJobs:
    """Jobs that run one after another, each in a new process.

    Args:
        settings: The settings of the server.
        checker: The checks of uploads.
        folder: Folder for inputs and outputs.
    """

    def __init__(self, settings: ServerSettings, checker: UploadChecker, folder: Path) -> None:
        self._settings, self._checker, self._folder = settings, checker, folder
        self._jobs: dict[str, VideoJob] = {}
        self._num_jobs = 0
        # Spawn processes: forking would copy locks that other threads hold.
        context = multiprocessing.get_context("spawn")
        # Number of the running job, its number of written frames, and of all frames.
        self._progress = context.RawArray("q", 3)
        self._pool = pebble.ProcessPool(
            1, max_tasks=1, initializer=_start_worker, initargs=(self._progress,), context=context
        )

    async def add(
        self,
        library: AvatarLibrary,
        face: UploadFile | None,
        avatar: str | None,
        audio: UploadFile | None,
        text: str | None,
    ) -> str:
        """Check the inputs, queue a job, and return its id.

        Raises:
            TalkingHeadError: An input is not accepted.
        """
        runner = self._settings.video_runner
        if runner is None:
            raise HTTPException(404, "this server does not render videos")
        num_active = sum(job.ended_s is None for job in self._jobs.values())
        if num_active >= self._settings.max_video_jobs:
            retry_after = {"Retry-After": str(_RETRY_AFTER_S)}
            raise HTTPException(503, "too many videos are being rendered", retry_after)
        job_id = secrets.token_urlsafe(16)
        self._num_jobs += 1
        job = self._jobs[job_id] = VideoJob(self._num_jobs, self._folder / job_id)
        try:
            await asyncio.to_thread(job.folder.mkdir)
            if face is None:
                source = await library.find(avatar)
                if source.is_relative_to(self._folder):  # An upload, which may expire meanwhile.
                    source = Path(await asyncio.to_thread(shutil.copy, source, job.folder))
            else:
                source = await self._checker.prepare(face, "face", job.folder, "face")
            speech = None
            if audio is not None:
                speech = await self._checker.prepare(audio, "speech", job.folder, "speech")
        except BaseException:
            await self._remove(job_id)
            raise
        arguments = (runner, job.number, source, speech, text, job.output)
        job.future = await asyncio.to_thread(
            self._pool.schedule, _render, arguments, timeout=self._settings.video_timeout_s
        )
        job.future.add_done_callback(partial(_note_end, job))
        return job_id

    def get(self, job_id: str) -> VideoJob:
        """Return a job; raise an `HTTPException` if there is none."""
        if job_id not in self._jobs:
            raise HTTPException(404, "there is no such video; it may have expired")
        return self._jobs[job_id]

    def state(self, job_id: str) -> VideoState:
        """Return the state of a job."""
        future = (job := self.get(job_id)).future
        if future is None or not (future.running() or future.done()):
            return VideoState(id=job_id, state="queued", progress=0)
        if not future.done():
            number, done, total = self._progress
            progress = done / total if number == job.number and total else 0
            return VideoState(id=job_id, state="running", progress=min(1.0, progress))
        if (error := future.exception()) is not None:
            return VideoState(id=job_id, state="failed", progress=0, error=_message(error))
        return VideoState(id=job_id, state="done", progress=1)

    def count(self) -> dict[str, int]:
        """Return the number of jobs in each state."""
        states = [self.state(job_id).state for job_id in self._jobs]
        return {state: states.count(state) for state in get_args(State)}

    async def remove(self, job_id: str) -> None:
        """Cancel a job, and delete its files; raise an `HTTPException` if there is none."""
        self.get(job_id)
        await self._remove(job_id)

    async def remove_expired(self) -> None:
        """Delete videos that were finished `video_expiry_s` ago."""
        oldest_s = time.monotonic() - self._settings.video_expiry_s
        for job_id, job in list(self._jobs.items()):
            if job.ended_s is not None and job.ended_s < oldest_s:
                await self._remove(job_id)

    async def _remove(self, job_id: str) -> None:
        """Remove a job unless a client has removed it meanwhile."""
        if (job := self._jobs.pop(job_id, None)) is None:
            return
        if job.future is not None:
            job.future.cancel()
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    def close(self) -> None:
        """Cancel all jobs, and wait until their processes have ended."""
        self._pool.stop()
        self._pool.join()


class _Worker:
    """State of a rendering process."""

    progress: Any


def _start_worker(progress: Any) -> None:
    _Worker.progress = progress
    lower_process_priority()  # Live sessions have priority over videos.


def _render(
    runner: VideoRunner, number: int, face: Path, audio: Path | None, text: str | None, output: Path
) -> None:
    """Render a job in a separate process."""
    parent = multiprocessing.parent_process()

    def report(done: int, total: int) -> None:
        _Worker.progress[:] = number, done, total
        if parent is not None and not parent.is_alive():
            os._exit(1)

    report(0, 0)
    outcome = runner.run(Job(face, audio, output, text), report)
    if outcome.error is not None:
        raise outcome.error


def _note_end(job: VideoJob, _: Future[None]) -> None:
    job.ended_s = time.monotonic()


def _message(error: BaseException) -> str:
    """Describe the failure of a job for its client."""
    if isinstance(error, TimeoutError):
        return "rendering took too long"
    if isinstance(error, TalkingHeadError):
        return public_message(error)
    if isinstance(error, pebble.ProcessExpired):
        return "the process died, probably for lack of memory"
    return ClientError.of(Exception(error)).message


Videos = Annotated[VideoJobs, app_state("videos")]
"""The video jobs as a parameter of a route."""
