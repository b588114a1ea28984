"""Emotion labels of clips, from folders or a table."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from talkinghead.csv_table import read_csv_table
from talkinghead.errors import CorpusError, UsageError


def read_emotions(source: str | Path | None, clip_ids: Collection[str]) -> dict[str, str]:
    """Return a mapping from clip ids to emotion labels; see `PrepareOptions.emotions`.

    A CSV file names each video by its path relative to the input folder, with or without suffix.

    Raises:
        CorpusError: The file is missing, has other columns or names an unknown video; or no clip
            has a label.
    """
    if source is None:
        return {}
    folders = {clip_id: PurePosixPath(clip_id).parts[:-1] for clip_id in clip_ids}
    if source == "folder":
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
    """Return a mapping from the column `clip`, as clip ids, to the column `emotion`.

    Clips that are not in `clip_ids` keep the name that is in the file.
    """
    expected = "give a CSV file with the columns clip and emotion"
    try:
        table = read_csv_table(path, "emotions", expected)
    except UsageError as error:
        raise CorpusError(str(error)) from error
    if not {"clip", "emotion"} <= set(table.columns):
        raise CorpusError(
            f"emotions={path} is not a table of clips: it has {table.found}; {expected}"
        )
    known, labels = set(clip_ids), {}
    for clip, emotion in ((row.values["clip"], row.values["emotion"]) for row in table.rows):
        without_suffix = PurePosixPath(clip).with_suffix("").as_posix()
        labels[without_suffix if clip not in known and without_suffix in known else clip] = emotion
    return labels
