"""What a conversation reports about each turn."""

from __future__ import annotations

from dataclasses import dataclass, fields

from talkinghead.errors import TalkingHeadError
from talkinghead.predict.predictor import RenderReport
from talkinghead.speech.protocols import Transcript
from talkinghead.speech.sentence_speech import SpokenSentence


@dataclass
class TurnTimes:
    """Completion time of each stage, in seconds after the end of the question; None if not reached.

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


@dataclass(frozen=True)
class TurnReport:
    """One question and its answer.

    Attributes:
        question: The transcribed or typed question.
        reply: The spoken sentences, with their times in the video.
        times: When each stage was complete.
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
