"""Tests of emotion labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from talkinghead.data.preparation.corpus import read_emotions
from talkinghead.errors import CorpusError

CLIPS = ["anna/happy/take 1", "anna/sad/take 1", "ben/take.2"]


def test_no_source_gives_no_labels() -> None:
    assert read_emotions(None, CLIPS) == {}


def test_labels_from_folders_below_the_speakers() -> None:
    assert read_emotions("folder", CLIPS) == dict(zip(CLIPS, ("happy", "sad"), strict=False))


def test_table_names_videos_with_or_without_suffix(tmp_path: Path) -> None:
    table = tmp_path / "my, labels.csv"
    table.write_text("emotion,clip\n happy ,anna/happy/take 1.mp4\nsad,ben/take.2\n", "utf-8-sig")
    assert read_emotions(str(table), CLIPS) == {CLIPS[0]: "happy", CLIPS[2]: "sad"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a table of clips"),
        ("video,label\na,b\n", r"is not a table of clips \(KeyError\('clip'\)\)"),
        ("clip,emotion\nanna/happy/take 1\n", "is not a table of clips"),
        ("clip,emotion\nanna/joy/take 1,joy\n", "names anna/joy/take 1, which is not among the 3"),
        ("clip,emotion\n", "labels none of 3 videos"),
    ],
)
def test_unusable_table_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    table = tmp_path / "labels.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_emotions(str(table), CLIPS)


def test_missing_emotion_folders_are_refused() -> None:
    with pytest.raises(CorpusError, match="SPEAKER/EMOTION/"):
        read_emotions("folder", ["anna/1", "2"])
