"""Detection of outputs that were already made from the same inputs and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR
from typing import Any, BinaryIO

import talkinghead
from talkinghead.errors import TalkingHeadError
from talkinghead.media.container import read_tags
from talkinghead.media.encoding.output_formats import numbered_path, output_format
from talkinghead.models.checkpoint import resolve_checkpoint
from talkinghead.predict.batch.jobs import Job
from talkinghead.predict.batch.remote_files import (
    Location,
    file_name,
    is_remote,
    open_remote,
    remote_version,
)

KEY_TAG = "job"
"""Name of the key in the metadata of an output."""

# Settings that affect only outputs made from text.
_VOICE_SETTINGS = ("language", "tts", "voice")
# Number of concurrent requests; object stores answer slowly.
_NUM_REQUESTS = 32
_MAX_HEADER_BYTES, _MAX_FILE_BYTES = 2**26, 2**50


def find_finished(jobs: Sequence[Job], settings: Mapping[str, Any]) -> Generator[bool]:
    """Yield for each job, in order, whether its output exists and is up to date."""

    def check(job: Job) -> bool:
        return is_done(job, job_key(job, settings))

    if not any(map(is_remote, (place for job in jobs for place in job.locations))):
        yield from map(check, jobs)
        return
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        yield from pool.map(check, jobs)


def job_key(job: Job, settings: Mapping[str, Any]) -> str | None:
    """Return a hash of everything that determines a job's output; None if it cannot be computed.

    The hash covers the contents of the input files (of remote files, the version that the file
    system states) and of all files that settings name, the other settings, and the package version.
    None is returned if one of the input files, the checkpoint or the personalisation cannot be
    read. `settings` are JSON values.
    """
    unused = {"checkpoint", "personalisation"}
    unused |= set() if job.audio is None else set(_VOICE_SETTINGS)
    used = {key: None if key in unused else value for key, value in settings.items()}
    text = json.dumps([used, job.changes], sort_keys=True)
    try:
        speech = [_digest(file) for file in job.audio_files]
        files = [_digest(job.face), job.text if job.audio is None else speech]
        checkpoint = Path(settings.get("checkpoint", "default"))
        is_export = str(checkpoint) != "default" and checkpoint.is_dir()
        files.append(_digest(checkpoint if is_export else resolve_checkpoint(checkpoint)))
        if (personalisation := settings.get("personalisation")) is not None:
            files.append(_digest(Path(personalisation)))
        files += [_digest(path) for path in _named_files(text)]
    except (OSError, TalkingHeadError):
        return None
    parts = [talkinghead.__version__, *files, text]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@lru_cache(maxsize=64)
def _named_files(settings: str) -> tuple[Path, ...]:
    """Return the files and folders that settings, as JSON, name.

    They are recognised by their existence, so that no option that names a file is forgotten.
    """
    return tuple(_find_files(json.loads(settings)))


def _find_files(value: Any) -> Iterator[Path]:
    if isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _find_files(member)
    if not isinstance(value, str):
        return
    kind, _, name = value.partition(":")
    path = Path(name if kind == "video" else value)
    try:
        # A word such as "en" may also be the name of a folder; only a path is taken for a folder.
        if path.is_file() or (len(path.parts) > 1 and path.is_dir()):
            yield path
    except (OSError, ValueError):  # The text is too long for a name, or contains NUL.
        return


def is_done(job: Job, key: str | None) -> bool:
    """Return whether the output exists and contains this key (see `job_key`)."""
    if key is None:
        return False
    try:
        muxer = output_format(file_name(job.output)).muxer
        with _open_output(job.output, muxer) as file:
            # FFmpeg would also search the streams of MP4 files for their parameters, which takes
            # longer.
            if muxer in {"mp4", "mov"}:
                return key.encode() in _movie_header(file)
            return any(key in text for text in read_tags(file, job.output, muxer).values())
    except (TalkingHeadError, OSError):
        return False


def _open_output(output: Location, muxer: str) -> BinaryIO:
    """Open an output; of an image sequence, the first image, which is put in place last."""
    if isinstance(output, str):
        return open_remote(output)
    path = numbered_path(output, 1) if muxer == "image2" else output
    if not path.is_file():
        raise FileNotFoundError(path)
    return path.open("rb")


def _movie_header(file: BinaryIO) -> bytes:
    """Return the content of the box `moov` of an MP4 file, empty if there is none."""
    while len(header := file.read(8)) == 8:
        size, kind, read = int.from_bytes(header[:4]), header[4:], 8
        if size == 1:  # The size is in the next eight bytes.
            size, read = int.from_bytes(file.read(8)), 16
        if kind == b"moov":
            return file.read(min(size - read, _MAX_HEADER_BYTES))
        if not read <= size < _MAX_FILE_BYTES:
            break
        file.seek(size - read, 1)
    return b""


@lru_cache(maxsize=64)
def _digest_of(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(location: Location) -> str:
    """Return the hash of a file; hashes are cached for files that many jobs share.

    That of a folder covers the names, the sizes and the times of its files.
    """
    if isinstance(location, str):
        return remote_version(location)
    status = location.stat()
    if S_ISDIR(status.st_mode):
        entries = sorted(
            (path.name, path.stat().st_size, path.stat().st_mtime_ns)
            for path in location.iterdir()
            if path.is_file()
        )
        return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    return _digest_of(location, status.st_size, status.st_mtime_ns)
