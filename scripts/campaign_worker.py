"""A process that runs single steps on generated inputs, and a watchdog with a time limit."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from campaign_inputs import AUDIO_SUFFIXES

STEPS = ("predict", "prepare", "score", "upload")


@dataclass(frozen=True)
class Result:
    """Result of a step: "done", "refused", "traceback", "hang", "crash" or "left a file"."""

    kind: str
    message: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0


class Worker:
    """A process that is replaced when a step exceeds the time limit or ends the process."""

    def __init__(self, face: Path, speech: Path, limit_s: float) -> None:
        self._inputs, self._limit_s = (face, speech), limit_s
        self._process: Any = None

    def run(self, step: str, path: Path, folder: Path, file_limit: int | None = None) -> Result:
        """Run a step on a file, with outputs in a new folder.

        Args:
            step: One of `STEPS`.
            path: The input.
            folder: Folder of the outputs; it is created.
            file_limit: Maximum size of written files in bytes, which simulates a full disk.
        """
        if self._process is None or not self._process.is_alive():
            self._start()
        folder.mkdir(parents=True)
        started_s = time.monotonic()
        self._connection.send((step, path, folder, file_limit))
        try:
            if not self._connection.poll(self._limit_s):
                self.close()
                return Result("hang", f"no result after {self._limit_s:g} s", self._limit_s)
            result: Result = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            message = f"exit status {self._process.exitcode}"
            return Result("crash", message, time.monotonic() - started_s)
        left = [p.name for p in folder.rglob(".*") if ".tmp" in p.name]
        if left and result.kind in ("done", "refused"):
            return Result("left a file", left[0], result.seconds, result.peak_mb)
        return result

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_serve, args=(remote, *self._inputs), daemon=False)
        self._process.start()
        remote.close()
        if not self._connection.poll(300):
            raise RuntimeError("the worker does not start")
        self._connection.recv()


def _serve(connection: Connection, face: Path, speech: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    steps = _Steps(face, speech)
    connection.send("ready")
    with suppress(EOFError):
        while True:
            step, path, folder, file_limit = connection.recv()
            connection.send(_measured(getattr(steps, step), path, folder, file_limit))


def _measured(
    step: Callable[[Path, Path], str], path: Path, folder: Path, file_limit: int | None
) -> Result:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, hard))
    started_s, kind = time.monotonic(), "done"
    from talkinghead.errors import TalkingHeadError

    try:
        message = step(path, folder)
    except TalkingHeadError as error:
        kind, message = "refused", str(error)
        if "\n" in message or not message:
            kind = "traceback"
    except OSError as error:
        # The command line explains these errors.
        from talkinghead.cli.shared.system_errors import explain_system_error

        explained = explain_system_error(error)
        kind, message = ("refused", explained) if explained else ("traceback", _last_lines())
    except BaseException:  # noqa: BLE001 - any other error is a fault
        kind, message = "traceback", _last_lines()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return Result(kind, message, time.monotonic() - started_s, _peak_mb())


def _last_lines() -> str:
    return " / ".join(line.strip() for line in traceback.format_exc().splitlines()[-4:])


def _peak_mb() -> float:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Steps:
    """The steps; models are loaded once."""

    def __init__(self, face: Path, speech: Path) -> None:
        # Import all that the steps use, so that the limits do not include it.
        import talkinghead.evaluation.system_clips
        import talkinghead.live.server.uploads  # noqa: F401
        from talkinghead.data.preparation.clip_maker import ClipMaker, ClipRules
        from talkinghead.features.faces.detector import build_detector
        from talkinghead.predict.predictor import LipSyncPredictor
        from talkinghead.types import AVSpec

        self._face, self._speech, self._spec = face, speech, AVSpec()
        self._predictor = LipSyncPredictor.from_checkpoint("default", lip_prior=None, device="cpu")
        self._detector = build_detector()
        self._maker = ClipMaker(self._detector, "litert", self._spec, ClipRules(0.2, 20))

    def predict(self, path: Path, folder: Path) -> str:
        """Use a file as speech or as a face, by its suffix."""
        is_audio = path.suffix in AUDIO_SUFFIXES
        face, speech = (self._face, path) if is_audio else (path, self._speech)
        report = self._predictor.render(face, speech, folder / "out.mp4")
        from talkinghead.media.reader import probe

        if probe(report.path).duration_s < Fraction(1, 50):
            raise RuntimeError("the output is empty")
        return f"{report.num_frames} frames"

    def prepare(self, path: Path, folder: Path) -> str:
        """Prepare a clip."""
        from talkinghead.data.preparation.clip_maker import ClipTask

        result = self._maker.run(ClipTask(path, "clip", folder / "clip.safetensors"))
        return result.reason or f"{result.num_frames} frames"

    def score(self, path: Path, folder: Path) -> str:
        """Read a clip for scoring."""
        from talkinghead.evaluation.system_clips import read_clip

        return f"{len(read_clip(path, self._detector, self._spec, max_frames=25))} frames"

    def upload(self, path: Path, folder: Path) -> str:
        """Check and rewrite an upload."""
        from starlette.datastructures import UploadFile

        from talkinghead.live.server.server_settings import ServerSettings
        from talkinghead.live.server.uploads import UploadChecker

        checker = UploadChecker(ServerSettings(face=self._face))
        kind = "speech" if path.suffix in AUDIO_SUFFIXES else "face"
        with path.open("rb") as file:
            upload = UploadFile(file, size=path.stat().st_size, filename=path.name)
            written = asyncio.run(checker.prepare(upload, kind, folder, "upload"))
        others = [name for name in os.listdir(folder) if name != written.name]  # noqa: PTH208
        if others:
            raise RuntimeError(f"left {others}")
        return written.name
