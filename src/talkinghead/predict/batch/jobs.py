"""Lists of jobs: reading, sharding, and detection of finished outputs."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import talkinghead
from talkinghead.errors import MediaError, TalkingHeadError, UsageError
from talkinghead.media.container import open_input
from talkinghead.models.checkpoint import resolve_checkpoint

KEY_TAG = "job"
"""Name of the key in the metadata of an output."""
_COLUMNS = ("face", "audio", "output")
# Keys of the setting `lip_prior` whose values are files.
_LIP_PRIOR_FILES = ("map_path", "path")
# Settings that affect only outputs made from text.
_VOICE_SETTINGS = ("language", "tts", "voice")


@dataclass(frozen=True)
class Job:
    """One video to render: a file of a face, a file of speech (or a text), and an output file."""

    face: Path
    audio: Path | None
    output: Path
    text: str | None = None


def make_jobs(
    face: str | Path | None,
    audio: str | Path | None,
    output: str | Path | None,
    jobs: str | Path | Sequence[Mapping[str, str]] | None,
    text: str | None = None,
) -> list[Job]:
    """Return one job for `face`, `audio` and `output`, or all jobs of a CSV file or a list.

    Args:
        face: Photo or video of the face.
        audio: Any file with speech.
        output: MP4 file to write.
        jobs: Several jobs in place of face, audio and output: a CSV file with these columns (paths
            relative to its own folder), or a list of mappings with these keys; a column text may
            replace audio. A failed job does not stop the others, and a second run makes only
            missing outputs (docs/batches.md).
        text: Text to be spoken by the voice, in place of audio.

    Raises:
        UsageError: Neither `jobs` nor a single job was given, or both were; a column is missing or
            the text is empty; there is no job; or two jobs write the same file.
    """
    single = {"face": face, "audio": audio, "output": output}
    if jobs is None:
        given = {**single, "audio": text if audio is None else audio}
        if missing := [name for name, value in given.items() if value is None]:
            raise UsageError(
                f"{' and '.join(f'{name}=FILE' for name in missing)} must be given: "
                "face=photo.jpg audio=speech.wav (or text=...) output=talking.mp4, or "
                "jobs=list.csv for several"
            )
        if text is not None and not text.strip():
            raise UsageError('text= is empty: give words to speak, such as text="Hello, you."')
        return [_job({**single, "text": text}, "the command line", Path())]
    if any(value is not None for value in (*single.values(), text)):
        raise UsageError("give either face=, audio= and output=, or jobs=; both were given")
    rows, name, folder = _read_rows(jobs)
    listed = [_job(row, f"{name}, job {number}", folder) for number, row in enumerate(rows, 1)]
    if not listed:
        raise UsageError(f"{name}: contains no job; expected rows of {', '.join(_COLUMNS)}")
    outputs = Counter(job.output.resolve() for job in listed)
    if twice := [path for path, count in outputs.items() if count > 1]:
        raise UsageError(f"{name}: two jobs write to {twice[0]}; give each job its own output")
    return listed


def take_shard(jobs: Sequence[Job], shard: int = 0, num_shards: int = 1) -> list[Job]:
    """Return every `num_shards`-th job from index `shard` on, so that runs can share a list.

    Args:
        jobs: All jobs.
        shard: Part of the list for this run, 0 to num_shards - 1.
        num_shards: Number of runs or machines that share the list.

    Raises:
        UsageError: There is no such shard.
    """
    if not 0 <= shard < num_shards:
        raise UsageError(
            f"shard={shard} of num_shards={num_shards}: expected 1 or more shards, numbered from 0"
        )
    return list(jobs[shard::num_shards])


def job_key(job: Job, settings: Mapping[str, Any]) -> str | None:
    """Return a hash of everything that determines a job's output; None if it cannot be computed.

    The hash covers the contents of the input files and of the files of the settings `checkpoint`,
    `personalisation` and `lip_prior`, the other settings, and the package version. None is returned
    if one of the files cannot be read. `settings` are JSON values.
    """
    try:
        files = [_digest(job.face), job.text if job.audio is None else _digest(job.audio)]
        checkpoint = _digest(resolve_checkpoint(settings.get("checkpoint", "default")))
        if (personalisation := settings.get("personalisation")) is not None:
            files.append(_digest(Path(personalisation)))
        lip_prior = settings.get("lip_prior") or {}
        paths = (lip_prior.get(name) for name in _LIP_PRIOR_FILES)
        files += [_digest(Path(path)) for path in paths if path is not None]
    except (OSError, TalkingHeadError):
        return None
    unused = {"checkpoint", "personalisation"}
    unused |= set() if job.audio is None else set(_VOICE_SETTINGS)
    used = {key: None if key in unused else value for key, value in settings.items()}
    parts = [talkinghead.__version__, *files, checkpoint, used]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_done(job: Job, key: str | None) -> bool:
    """Return whether the output exists and contains this key (see `job_key`)."""
    if key is None or not job.output.is_file():
        return False
    try:
        with open_input(job.output) as container:
            return f"{KEY_TAG}={key}" in container.metadata.get("comment", "").split("; ")
    except MediaError:
        return False


@lru_cache(maxsize=4)
def _digest_of(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: Path) -> str:
    """Return the hash of a file; hashes are cached for files that many jobs share."""
    status = path.stat()
    return _digest_of(path, status.st_size, status.st_mtime_ns)


def _read_rows(
    jobs: str | Path | Sequence[Mapping[str, str]],
) -> tuple[Sequence[Mapping[str, str | None]], str, Path]:
    """Return the rows, the list's name for error messages, and the base folder of its paths."""
    if not isinstance(jobs, str | Path):
        return jobs, "jobs", Path()
    path = Path(jobs)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file)), str(path), path.parent
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not CSV text"
        raise UsageError(
            f"jobs={path} cannot be read ({reason}); expected a CSV of {', '.join(_COLUMNS)}"
        ) from error


def _job(row: Mapping[str, str | Path | None], name: str, folder: Path) -> Job:
    face, audio, output, text = (str(row.get(c) or "").strip() for c in (*_COLUMNS, "text"))
    values = {"face": face, "audio": audio or text, "output": output}
    if missing := [column for column, value in values.items() if not value]:
        raise UsageError(
            f"{name}: {', '.join(missing)} is missing; expected {', '.join(_COLUMNS)} (or text "
            "instead of audio)"
        )
    if audio and text:
        raise UsageError(f"{name}: audio and text were both given; give one of them")
    return Job(folder / face, folder / audio if audio else None, folder / output, text or None)
