"""Files written beside a conversation's video: subtitles and a JSON transcript."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from talkinghead.media.atomic_file import atomic_path
from talkinghead.speech.sentence_speech import SpokenSentence
from talkinghead.speech.turn_report import TurnReport


def write_transcript(report: TurnReport, video: Path) -> None:
    """Write `.srt` and `.json` files with the video's name beside the video.

    The subtitles are the reply's sentences. The JSON file holds the question with its language and,
    where known, the times of its words; the reply's sentences with their times in the video; and
    the times of the turn's stages.

    Raises:
        MediaError: A file cannot be written.
    """
    with atomic_path(video.with_suffix(".srt")) as path:
        path.write_text(subtitles(report.reply), encoding="utf-8")
    values = {
        "question": asdict(report.question, dict_factory=_rounded),
        "reply": [asdict(sentence, dict_factory=_rounded) for sentence in report.reply],
        "times": asdict(report.times, dict_factory=_rounded),
        "interrupted": report.interrupted,
        "error": None if report.error is None else str(report.error),
    }
    with atomic_path(video.with_suffix(".json")) as path:
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False), encoding="utf-8")


def subtitles(sentences: Sequence[SpokenSentence]) -> str:
    """Return the sentences as SubRip text."""
    return "\n".join(
        f"{number}\n{_timestamp(sentence.start_s)} --> {_timestamp(sentence.end_s)}\n"
        f"{sentence.text}\n"
        for number, sentence in enumerate(sentences, 1)
    )


def _timestamp(time_s: float) -> str:
    """Format seconds as HH:MM:SS,mmm."""
    seconds, ms = divmod(round(time_s * 1000), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02},{ms:03}"


def _rounded(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Round a dataclass's times to milliseconds."""
    return {name: round(v, 3) if isinstance(v, float) else v for name, v in items}
