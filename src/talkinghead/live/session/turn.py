"""The state of one turn of a live dialogue."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from talkinghead.speech.sentence_speech import SpokenSentence
from talkinghead.speech.turn_report import TurnState
from talkinghead.types import FloatArray

_POLL_S = 0.05


@dataclass(eq=False)
class Turn(TurnState):
    """One turn: a question and its reply.

    Attributes:
        number: Number of the turn, counted from 1.
        confirmed: Set when the question has certainly ended; before, nothing is spoken.
        question: The text of the question; empty for a text that is only spoken.
        is_question_final: The question was emitted as final.
        reply: Number of the last reply in the live avatar; None before its first audio.
        starts_s: Time of the turn's speech at which each of its replies starts, by number. There
            are several replies if speech did not arrive in time.
        pushed_s: Duration of the speech that was pushed to the avatar.
        is_complete: All speech was pushed.
        ended_reply: Number of the last reply that was played to its end.
        sentences: The sentences of the reply that were synthesised so far.
        num_shown: Number of sentences whose playback has started.
        played_s: Duration of the speech that was played.
        num_frames: Number of frames of the reply that were played.
        audio: Speech of the reply, for its recording.
        sample_rate: Sample rate of `audio` in Hz; 0 before the first audio.
    """

    number: int = 0
    confirmed: threading.Event = field(default_factory=threading.Event)
    question: str = ""
    is_question_final: bool = False
    reply: int | None = None
    starts_s: dict[int, float] = field(default_factory=dict)
    pushed_s: float = 0.0
    is_complete: bool = False
    ended_reply: int | None = None
    sentences: list[SpokenSentence] = field(default_factory=list)
    num_shown: int = 0
    played_s: float = 0.0
    num_frames: int = 0
    audio: list[FloatArray] = field(default_factory=list)
    sample_rate: int = 0

    def wait_until_confirmed(self) -> bool:
        """Wait until the question has certainly ended; return False if the turn is cancelled."""
        while not self.cancel.is_set():
            if self.confirmed.wait(_POLL_S):
                return not self.cancel.is_set()
        return False

    @property
    def is_over(self) -> bool:
        """Whether all speech of the turn was pushed and played."""
        return self.is_complete and self.reply is not None and self.ended_reply == self.reply

    @property
    def shown_text(self) -> str:
        """The part of the reply whose playback has started."""
        return " ".join(sentence.text for sentence in self.sentences[: self.num_shown])

    def transcript_event(self, role: str, text: str, is_final: bool = True) -> dict[str, Any]:
        """Return the event of a text that was recognised or is being spoken."""
        event = {"type": "transcript", "role": role, "turn": self.number}
        return {**event, "text": text, "is_final": is_final}

    def timings_event(self) -> dict[str, Any]:
        """Return the event with the completion times of the stages."""
        values = {name: value for name, value in vars(self.times).items() if value is not None}
        rounded = {name: round(value, 3) for name, value in values.items()}
        return {"type": "timings", "turn": self.number, **rounded}

    def end_event(self) -> dict[str, Any]:
        """Return the event of the end of the reply."""
        return {
            "type": "reply_end",
            "turn": self.number,
            "interrupted": self.cancel.is_set(),
            "num_frames": self.num_frames,
            "duration_s": round(self.played_s, 3),
        }
