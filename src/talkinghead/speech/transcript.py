"""What was said, beside the video: subtitles, and all of it for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkinghead.media.atomic_file import atomic_path
from talkinghead.speech.sentence_speech import SpokenSentence

if TYPE_CHECKING:
    from talkinghead.speech.conversation import TurnReport


def write_transcript(report: TurnReport, video: Path) -> None:
    """Writes a turn's transcript beside its video: `.srt` and `.json`.

    The subtitles are the reply's sentences. The JSON file has the question with its language and,
    where they are known, its words' times in the question's sound; the reply's sentences with their
    times in the video; and the times of the turn's stages.

    Raises:
        MediaError: a file cannot be written.
    """
    with atomic_path(video.with_suffix(".srt")) as path:
        path.write_text(subtitles(report.reply), encoding="utf-8")
    values = {
        "question": asdict(report.question, dict_factory=_to_ms),
        "reply": [asdict(sentence, dict_factory=_to_ms) for sentence in report.reply],
        "times": asdict(report.times, dict_factory=_to_ms),
        "interrupted": report.interrupted,
        "error": None if report.error is None else str(report.error),
    }
    with atomic_path(video.with_suffix(".json")) as path:
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False), encoding="utf-8")


def subtitles(sentences: Sequence[SpokenSentence]) -> str:
    """Sentences as SubRip text."""
    return "\n".join(
        f"{number}\n{_clock(sentence.start_s)} --> {_clock(sentence.end_s)}\n{sentence.text}\n"
        for number, sentence in enumerate(sentences, 1)
    )


def _clock(time_s: float) -> str:
    """Seconds as HH:MM:SS,mmm."""
    seconds, ms = divmod(round(time_s * 1000), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02},{ms:03}"


def _to_ms(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dataclass's values, with times to the millisecond."""
    return {name: round(v, 3) if isinstance(v, float) else v for name, v in items}
