"""Lists of jobs: reading and sharding."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from talkinghead.csv_table import read_csv_table
from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.media.encoding.output_formats import output_format
from talkinghead.predict.batch.remote_files import (
    Location,
    download,
    file_name,
    is_remote,
    locate,
    parent,
    upload,
)
from talkinghead.value_rules import NonNegativeInt, PositiveInt

_COLUMNS = ("face", "audio", "output")
_EXPECTED = "give a CSV file with the columns face, audio (or text) and output, separated by commas"


@dataclass(frozen=True)
class Job:
    """One video to render: a file of a face, a file of speech (or a text), and an output file.

    Remote files are URLs as text (see `remote_files`).
    """

    face: Location
    audio: Location | None
    output: Location
    text: str | None = None

    @property
    def locations(self) -> tuple[Location, ...]:
        """The files of the job."""
        audio = () if self.audio is None else (self.audio,)
        return (self.face, *audio, self.output)


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
        output: File to write. The suffix selects the format: .mp4, .mov, .mkv, .webm, .gif, or
            images such as frames/%05d.png.
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
    outputs = Counter(
        job.output if isinstance(job.output, str) else job.output.resolve() for job in listed
    )
    if twice := [path for path, count in outputs.items() if count > 1]:
        raise UsageError(f"{name}: two jobs write to {twice[0]}; give each job its own output")
    return listed


@contextmanager
def local_job(job: Job) -> Iterator[Job]:
    """Yield a job with local copies of remote inputs; upload a remote output at the end.

    Raises:
        DependencyError: The package of a file system is missing.
        MediaError: A file cannot be read or written; messages name the URLs.
    """
    if not any(map(is_remote, job.locations)):
        yield job
        return
    with tempfile.TemporaryDirectory(prefix="talkinghead-") as name:
        folder = Path(name)
        copies: dict[Location, Path] = {}
        for location in job.locations[:-1]:
            if isinstance(location, str):
                copies[location] = download(location, folder)
        if isinstance(job.output, str):
            copies[job.output] = folder / file_name(job.output)
        audio = None if job.audio is None else copies.get(job.audio, job.audio)
        face, output = copies.get(job.face, job.face), copies.get(job.output, job.output)
        try:
            yield replace(job, face=face, audio=audio, output=output)
        except TalkingHeadError as error:
            message = str(error)
            for url, copy in copies.items():
                message = message.replace(str(copy), str(url))
            raise type(error)(message) from error
        if isinstance(job.output, str):
            upload(copies[job.output], job.output)


def take_shard(
    jobs: Sequence[Job], shard: NonNegativeInt = 0, num_shards: PositiveInt = 1
) -> list[Job]:
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


def _read_rows(
    jobs: str | Path | Sequence[Mapping[str, str]],
) -> tuple[Sequence[Mapping[str, str | None]], str, Location]:
    """Return the rows, the list's name for error messages, and the base folder of its paths."""
    if not isinstance(jobs, str | Path):
        return jobs, "jobs", Path()
    if isinstance(jobs, str) and is_remote(jobs):
        with tempfile.TemporaryDirectory() as folder:
            rows, _, _ = _read_rows(download(jobs, Path(folder)))
        return rows, jobs, parent(jobs)
    path = Path(jobs)
    table = read_csv_table(path, "jobs", _EXPECTED)
    if table.columns and not {"face", "output"} <= set(table.columns):
        raise UsageError(f"jobs={path} has {table.found}: {_EXPECTED}")
    return [row.values for row in table.rows], str(path), path.parent


def _job(row: Mapping[str, str | Path | None], name: str, folder: Location) -> Job:
    face, audio, output, text = (str(row.get(c) or "").strip() for c in (*_COLUMNS, "text"))
    values = {"face": face, "audio": audio or text, "output": output}
    if missing := [column for column, value in values.items() if not value]:
        raise UsageError(
            f"{name}: {', '.join(missing)} is missing; expected {', '.join(_COLUMNS)} (or text "
            "instead of audio)"
        )
    if audio and text:
        raise UsageError(f"{name}: audio and text were both given; give one of them")
    output_format(output)  # An unknown format is an error before any work.
    places = locate(face, folder), locate(audio, folder) if audio else None, locate(output, folder)
    return Job(*places, text or None)
