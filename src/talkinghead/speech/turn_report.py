"""The report of a conversation turn, and the transcript files that are written for it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from threading import Event
from typing import Any

from talkinghead.errors import TalkingHeadError
from talkinghead.media.atomic_file import atomic_path
from talkinghead.predict.prediction import RenderReport
from talkinghead.speech.protocols import Transcript
from talkinghead.speech.sentence_speech import SpokenSentence


@dataclass
class TurnTimes:
    """End times of the stages in seconds after the question; None for stages not completed.

    Attributes:
        transcript_s: The question is transcribed; 0 for a typed question.
        first_token_s: The language model has produced its first piece of text.
        first_sentence_s: The first sentence is complete.
        first_audio_s: The first audio of that sentence is synthesised.
        first_frame_s: The first video frame is encoded.
        end_s: The video is written.
    """

    transcript_s: float | None = None
    first_token_s: float | None = None
    first_sentence_s: float | None = None
    first_audio_s: float | None = None
    first_frame_s: float | None = None
    end_s: float | None = None

    def __str__(self) -> str:
        times = {f.name[:-2].replace("_", " "): getattr(self, f.name) for f in fields(self)}
        return ", ".join(f"{name} {t:.2f} s" for name, t in times.items() if t is not None)


@dataclass(eq=False)
class TurnState:
    """State shared by the stages of one turn.

    Attributes:
        cancel: Once set, all stages of the turn stop.
        started_s: When the question ended, on the clock of `time.monotonic`.
        times: Completion times of the stages.
    """

    cancel: Event = field(default_factory=Event)
    started_s: float = field(default_factory=time.monotonic)
    times: TurnTimes = field(default_factory=TurnTimes)

    def mark(self, name: str) -> None:
        """Record the time at which a stage is completed for the first time."""
        if getattr(self.times, name) is None:
            setattr(self.times, name, time.monotonic() - self.started_s)


@dataclass(frozen=True)
class TurnReport:
    """The report of a conversation turn: the question, the reply and the end times of the stages.

    Attributes:
        question: The transcribed or typed question.
        reply: The spoken sentences, with their times in the video.
        times: Completion time of each stage.
        video: The video that was written; None if the turn was interrupted before any speech.
        interrupted: Whether `Conversation.interrupt` ended the turn.
        error: The error that ended the reply early; the speech before it was kept.
    """

    question: Transcript
    reply: tuple[SpokenSentence, ...]
    times: TurnTimes
    video: RenderReport | None
    interrupted: bool = False
    error: TalkingHeadError | None = None


def write_transcript(report: TurnReport, video: Path) -> None:
    """Write the subtitles (`.srt`) and the transcript (`.json`) of a turn to the video's folder.

    The subtitles are the reply's sentences. The JSON file holds the question with its language and,
    where known, the times of its words; the reply's sentences with their times in the video; and
    the times of the turn's stages.

    Raises:
        MediaError: A file cannot be written.
    """
    subtitles = "\n".join(
        f"{number}\n{_timestamp(sentence.start_s)} --> {_timestamp(sentence.end_s)}\n"
        f"{sentence.text}\n"
        for number, sentence in enumerate(report.reply, 1)
    )
    values = {
        "question": asdict(report.question, dict_factory=_rounded),
        "reply": [asdict(sentence, dict_factory=_rounded) for sentence in report.reply],
        "times": asdict(report.times, dict_factory=_rounded),
        "interrupted": report.interrupted,
        "error": None if report.error is None else str(report.error),
    }
    transcript = json.dumps(values, indent=2, ensure_ascii=False)
    for suffix, text in ((".srt", subtitles), (".json", transcript)):
        with atomic_path(video.with_suffix(suffix)) as path:
            path.write_text(text, encoding="utf-8")


def _timestamp(time_s: float) -> str:
    """Format seconds as HH:MM:SS,mmm."""
    seconds, ms = divmod(round(time_s * 1000), 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02},{ms:03}"


def _rounded(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a dataclass by name, with times rounded to milliseconds."""
    return {name: round(v, 3) if isinstance(v, float) else v for name, v in items}
