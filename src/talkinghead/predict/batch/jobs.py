"""Lists of jobs: reading and sharding."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from talkinghead.csv_table import decode_text, read_csv_table
from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.media.atomic_file import temporary_folder
from talkinghead.media.encoding.output_formats import output_format
from talkinghead.paths import output_file
from talkinghead.predict.batch.job_keys import require_job_keys
from talkinghead.predict.batch.remote_files import (
    Location,
    download,
    file_name,
    is_remote,
    locate,
    parent,
    upload,
)
from talkinghead.predict.source.selection.face_choice import face_word, is_photo
from talkinghead.value_rules import NonNegativeInt, PositiveInt

_COLUMNS = ("face", "audio", "output")
_FACE_OPTIONS = ("face_select", "exclude_face")
_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
_BRACKETS = re.compile(r"\s*\[(.*)\]\s*", re.DOTALL)
# A pixel as Python and JSON write it: (320, 180), or [320, 180] inside a list.
_PAIR = r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*"
_PIXEL_PAIR = re.compile(rf"\({_PAIR}\)|(?<=[\[,|])\s*\[{_PAIR}\]")
_SPACE = re.compile(r"\s*")
_EXPECTED = "give a CSV file with the columns face, audio (or text) and output, separated by commas"


@dataclass(frozen=True)
class Job:
    """One video to render: a file of a face, a file of speech (or a text), and an output file.

    `audio` may have a file for each of several faces. `changes` are options of the source that only
    this job has: "face_select", "face_index" and "exclude_face". Remote files are URLs as text (see
    `remote_files`).
    """

    face: Location
    audio: Location | tuple[Location, ...] | None
    output: Location
    text: str | None = None
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def audio_files(self) -> tuple[Location, ...]:
        """The files of the speech; none for a text."""
        if self.audio is None:
            return ()
        return self.audio if isinstance(self.audio, tuple) else (self.audio,)

    @property
    def locations(self) -> tuple[Location, ...]:
        """The files of the job."""
        return (self.face, *self.audio_files, self.output)


def make_jobs(
    face: str | Path | None,
    audio: str | Path | Sequence[str | Path] | None,
    output: str | Path | None,
    jobs: str | Path | Sequence[Mapping[str, Any]] | None,
    text: str | None = None,
) -> list[Job]:
    """Return one job for `face`, `audio` and `output`, or all jobs of a CSV file or a list.

    Args:
        face: Photo or video of the face.
        audio: Any file with speech, or a list with a file for each of several faces, which
            `face_select` lists (docs/video.md).
        output: File to write. The suffix selects the format: .mp4, .mov, .mkv, .webm, .gif, or
            images such as frames/%05d.png.
        jobs: Several jobs in place of face, audio and output: a CSV or JSON file with these columns
            (paths relative to its own folder), or a list of mappings with these keys; a column text
            may replace audio, and columns face_select, face_index and exclude_face are options of
            single jobs. A failed job does not stop the others, and a second run makes only missing
            outputs (docs/batches.md).
        text: Text to be spoken by the voice, in place of audio.

    Raises:
        UsageError: Neither `jobs` nor a single job was given, or both were; a column is missing or
            the text is empty; there is no job; or two jobs write the same file.
    """
    single = {"face": face, "audio": audio, "output": output}
    if jobs is None:
        require_job_keys(**single, text=text)
        return [_job({**single, "text": text}, "the command line", Path())]
    if any(value is not None for value in (*single.values(), text)):
        raise UsageError("give either face=, audio= and output=, or jobs=; both were given")
    rows, name, folder = _read_rows(jobs)
    split = [_split_cells(row, folder) for row in rows]
    listed = [_job(row, f"{name}, job {number}", folder) for number, row in enumerate(split, 1)]
    if not listed:
        raise UsageError(f"{name}: contains no job; expected rows of {', '.join(_COLUMNS)}")
    _check_outputs(listed, name)
    return listed


def _check_outputs(jobs: Sequence[Job], name: str) -> None:
    """Refuse a list, of this name, with two jobs that write the same file."""
    resolved = cache(Path.resolve)  # Many outputs share a folder.
    outputs = Counter(
        job.output if isinstance(job.output, str) else resolved(job.output.parent) / job.output.name
        for job in jobs
    )
    if twice := [path for path, count in outputs.items() if count > 1]:
        raise UsageError(f"{name}: two jobs write to {twice[0]}; give each job its own output")


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
    with temporary_folder() as name:
        folder = Path(name)
        copies: dict[Location, Path] = {}
        for location in job.locations[:-1]:
            if isinstance(location, str):
                copies[location] = download(location, folder)
        if isinstance(job.output, str):
            copies[job.output] = folder / file_name(job.output)
        files = tuple(copies.get(file, file) for file in job.audio_files)
        audio = files if isinstance(job.audio, tuple) else next(iter(files), None)
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
            f"shard={shard} of num_shards={num_shards}: expected 0 to {max(0, num_shards - 1)}, as "
            "shards are numbered from 0"
        )
    return list(jobs[shard::num_shards])


def _read_rows(
    jobs: str | Path | Sequence[Mapping[str, Any]],
) -> tuple[Sequence[Mapping[str, Any]], str, Location]:
    """Return the rows, the list's name for error messages, and the base folder of its paths."""
    if not isinstance(jobs, str | Path):
        is_list = isinstance(jobs, Iterable) and not isinstance(jobs, Mapping | bytes)
        return _checked_rows(list(jobs) if is_list else [jobs], "jobs"), "jobs", Path()
    if isinstance(jobs, str) and is_remote(jobs):
        with temporary_folder() as folder:
            rows, _, _ = _read_rows(download(jobs, Path(folder)))
        return rows, jobs, parent(jobs)
    path = Path(jobs)
    if path.suffix.lower() in _JSON_SUFFIXES:
        return _read_json(path), str(path), path.parent
    table = read_csv_table(path, "jobs", _EXPECTED)
    if table.columns and not {"face", "output"} <= set(table.columns):
        raise UsageError(f"jobs={path} has {table.found}: {_EXPECTED}")
    return [row.values for row in table.rows], str(path), path.parent


def _read_json(path: Path) -> list[Mapping[str, Any]]:
    """Return the objects of a JSON list, or of a file with one object after the other."""
    try:
        text = decode_text(path.read_bytes()).strip()
        rows = json.loads(text) if text.startswith("[") else list(_json_values(text))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"jobs={path} cannot be read ({error}): give a JSON list of objects with the keys "
            "face, audio (or text) and output, or a CSV file"
        ) from error
    return _checked_rows(rows, str(path))


def _json_values(text: str) -> Iterator[Any]:
    """Yield the values of a JSON text, which may be on a line each or on several lines."""
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        value, end = decoder.raw_decode(text, position)
        yield value
        space = _SPACE.match(text, end)
        position = space.end() if space else end


def _checked_rows(rows: Sequence[Any], name: str) -> list[Mapping[str, Any]]:
    """Return the rows of a list that is no table, with keys in lower case.

    Raises:
        UsageError: A row is no mapping.
    """
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise UsageError(
                f"{name}, job {number} is {str(row)[:60]!r}: expected a mapping with the keys "
                "face, audio (or text) and output"
            )
    return [{str(key).strip().lower(): value for key, value in row.items()} for row in rows]


def _split_cells(row: Mapping[str, Any], folder: Location) -> dict[str, Any]:
    """Return a row with a list where a text holds several values, such as those for faces.

    They are separated by `|`, indices and pixels also by commas and semicolons. In brackets, as on
    the command line, all are separated by commas. The name of a file that exists is one value.
    """
    cells = dict(row)
    for name in ("audio", *_FACE_OPTIONS):
        text = row.get(name)
        if not isinstance(text, str) or _is_file(text, folder):
            continue
        if name in _FACE_OPTIONS:
            text = cells[name] = _PIXEL_PAIR.sub(_pixel, text)
        listed = _BRACKETS.fullmatch(text)
        faces = re.split("[,;]", text) if name in _FACE_OPTIONS else []
        if listed is not None:
            cells[name] = [item.strip(" '\"") for item in re.split("[,|]", listed[1])]
        elif "|" in text:
            cells[name] = text.split("|")
        elif len(faces) > 1 and not any(map(is_photo, faces)):
            cells[name] = faces
    return cells


def _pixel(pair: re.Match[str]) -> str:
    x, y = filter(None, pair.groups())
    return f"{x}x{y}"


def _is_file(text: str, folder: Location) -> bool:
    place = locate(text, folder)
    try:
        return isinstance(place, Path) and place.is_file()
    except (OSError, ValueError):  # The text is too long for a file name or contains NUL.
        return False


def _job(row: Mapping[str, Any], name: str, folder: Location) -> Job:
    face, output, text = (_text(row.get(c), c, name) for c in ("face", "output", "text"))
    audio = [_text(file, "audio", name) for file in _items(row.get("audio"))]
    values = {"face": face, "audio": audio or text, "output": output}
    if missing := [column for column, value in values.items() if not value]:
        raise UsageError(
            f"{name}: {', '.join(missing)} is missing; expected {', '.join(_COLUMNS)} (or text "
            "instead of audio)"
        )
    if audio and text:
        raise UsageError(f"{name}: audio and text were both given; give one of them")
    # An unknown format is an error before any work.
    is_sequence = output_format(output).video_codec == "image"
    target = locate(output, folder)
    if isinstance(target, Path):
        output_file(output if output.endswith(("/", "/.")) else target)
    elif target.endswith("/"):
        raise UsageError(f"{name}: output={target} is a folder: give the name of a file to write")
    if is_sequence and is_remote(target):
        raise UsageError(
            f"{name}: output={target} is an image sequence, which is written only to local "
            "folders: give a local path, or a name that ends in .mp4"
        )
    files = tuple(locate(file, folder) for file in audio)
    speech = files if len(files) > 1 else next(iter(files), None)
    return Job(locate(face, folder), speech, target, text or None, _changes(row, folder))


def _text(value: Any, column: str, name: str) -> str:
    """Return a value of a job, without spaces around it; a number is its digits."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | Path | int | float):
        raise UsageError(f"{name}: {column}={value!r}: expected text, not a {type(value).__name__}")
    return str(value).strip()


def _items(value: Any) -> list[Any]:
    """Return the items of a list, or a single value as a list, without empty items."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    items = list(value) if is_list else [value]
    items = [item.strip() if isinstance(item, str) else item for item in items]
    return [item for item in items if item not in (None, "")]


def _changes(row: Mapping[str, Any], folder: Location) -> tuple[tuple[str, Any], ...]:
    """Return the options of the source in a row; photos of persons are relative to the folder."""
    changes: list[tuple[str, Any]] = []
    for option in _FACE_OPTIONS:
        items = _items(row.get(option))
        word = face_word(items[0]) if option == "face_select" and len(items) == 1 else None
        if word is not None:
            changes.append((option, word))
        elif items:
            faces = [
                str(locate(item, folder)) if isinstance(item, str) and is_photo(item) else item
                for item in items
            ]
            changes.append((option, tuple(map(_as_choice, faces))))
    if (index := row.get("face_index")) not in (None, ""):
        changes.append(("face_index", _as_index(index)))
    return tuple(changes)


def _as_index(value: Any) -> Any:
    """Return a whole number that may be a text, such as 1.0, as an integer; others unchanged."""
    try:
        number = value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else value


def _as_choice(face: Any) -> Any:
    """Return a pixel as a pair, and a whole number that a spreadsheet wrote as 0.0 as an index."""
    if isinstance(face, list):
        return tuple(face)
    return int(face) if isinstance(face, float) and face.is_integer() else face
