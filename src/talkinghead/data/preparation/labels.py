"""Labels of clips from folders and tables."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from talkinghead.errors import CorpusError

_FOLDER = "folder"


def read_emotions(source: str | Path | None, clip_ids: Collection[str]) -> dict[str, str]:
    """Return the emotion labels by clip id.

    Args:
        source: None for no labels; "folder" for the name of each video's folder below that of its
            speaker; or the path of a CSV file with the columns `clip` (a video's path relative to
            the input folder, with or without its suffix) and `emotion`.
        clip_ids: paths of all videos relative to the input folder, without suffixes.

    Raises:
        CorpusError: the file is missing or is no such table, names an unknown video, or labels no
            clip.
    """
    if source is None:
        return {}
    folders = {clip_id: PurePosixPath(clip_id).parts[:-1] for clip_id in clip_ids}
    if source == _FOLDER:
        labels = {clip_id: parts[-1] for clip_id, parts in folders.items() if len(parts) > 1}
    else:
        labels = _read_table(Path(source), clip_ids)
        if unknown := sorted(set(labels) - set(clip_ids)):
            raise CorpusError(
                f"emotions={source} names {unknown[0]}, which is not among the {len(clip_ids)} "
                "videos: give paths relative to the input folder, such as SPEAKER/CLIP"
            )
    if not labels:
        raise CorpusError(
            f"emotions={source} labels none of {len(clip_ids)} videos: emotions=folder needs them "
            "in SPEAKER/EMOTION/, a CSV file must name them"
        )
    return labels


def _read_table(path: Path, clip_ids: Collection[str]) -> dict[str, str]:
    """Return the column `emotion` by the column `clip`; unknown clips are returned as written."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["clip"].strip(), row["emotion"].strip()) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise CorpusError(
            f"{path} is not a table of clips ({error!r}): give a CSV file with the columns clip "
            "and emotion"
        ) from error
    known, labels = set(clip_ids), {}
    for clip, emotion in rows:
        without_suffix = PurePosixPath(clip).with_suffix("").as_posix()
        labels[without_suffix if clip not in known and without_suffix in known else clip] = emotion
    return labels
