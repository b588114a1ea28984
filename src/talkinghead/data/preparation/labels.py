"""What tables and folders say of clips: their emotions, their texts."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from talkinghead.errors import CorpusError

FOLDER = "folder"


def read_emotions(source: str | Path | None, clip_ids: Collection[str]) -> dict[str, str]:
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
        labels = read_clip_table(Path(source), "emotion", clip_ids)
        if unknown := sorted(set(labels) - set(clip_ids)):
            raise CorpusError(
                f"emotions={source} names {unknown[0]}, which is not among the {len(clip_ids)} "
                "videos: give paths below the input folder, such as SPEAKER/CLIP"
            )
    if not labels:
        raise CorpusError(
            f"emotions={source} labels none of {len(clip_ids)} videos: with folder they must lie "
            "in SPEAKER/EMOTION/, a CSV file must name them"
        )
    return labels


def read_clip_table(path: Path, column: str, clip_ids: Collection[str]) -> dict[str, str]:
    """A column of a CSV file by its column `clip`, which names clips, with or without an ending.

    Returns:
        Values by the clips' ids, or by names as they are written where there is no such clip.

    Raises:
        CorpusError: the file is missing or no such table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["clip"].strip(), row[column].strip()) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise CorpusError(
            f"{path} is no table of clips ({error!r}): give a CSV file with the columns clip and "
            f"{column}"
        ) from error
    known = set(clip_ids)
    bare = ((PurePosixPath(clip).with_suffix("").as_posix(), clip, value) for clip, value in rows)
    return {
        short if short in known and clip not in known else clip: value
        for short, clip, value in bare
    }
