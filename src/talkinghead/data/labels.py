"""The emotion labels of a folder of videos."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from talkinghead.errors import CorpusError

FOLDER = "folder"


def read_emotions(source: str | None, clip_ids: Collection[str]) -> dict[str, str]:
    """The emotion of each clip that has one.

    Args:
        source: None: no clip has; "folder": the name of the folder that a video lies in, where that
            is not its speaker's; or the path of a CSV file with the columns `clip` (a video's path
            below the input folder, with or without its ending) and `emotion`.
        clip_ids: of all clips: paths below the input folder, without the ending.

    Returns:
        Labels by the clips' ids.

    Raises:
        CorpusError: the file is missing or no such table, names a video that is not there, or no
            clip gets a label.
    """
    if source is None:
        return {}
    folders = {clip_id: PurePosixPath(clip_id).parts[:-1] for clip_id in clip_ids}
    if source == FOLDER:
        labels = {clip_id: parts[-1] for clip_id, parts in folders.items() if len(parts) > 1}
    else:
        labels = _read_table(Path(source), clip_ids)
    if not labels:
        raise CorpusError(
            f"emotions={source} labels none of {len(clip_ids)} videos: with folder they must lie "
            "in SPEAKER/EMOTION/, a CSV file must name them"
        )
    return labels


def _read_table(path: Path, clip_ids: Collection[str]) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["clip"].strip(), row["emotion"].strip()) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise CorpusError(
            f"emotions={path} is no table of labels ({error!r}): give a CSV file with the columns "
            "clip and emotion, or folder"
        ) from error
    labels = {}
    for clip, emotion in rows:
        clip_id = clip if clip in clip_ids else PurePosixPath(clip).with_suffix("").as_posix()
        if clip_id not in clip_ids:
            raise CorpusError(
                f"emotions={path} names {clip}, which is not among the {len(clip_ids)} videos: "
                "give paths below the input folder, such as SPEAKER/CLIP"
            )
        labels[clip_id] = emotion
    return labels
