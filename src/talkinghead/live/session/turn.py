"""The state of one turn of a live dialogue, and the transcription of its question."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from talkinghead.speech.protocols import SpeechToText
from talkinghead.speech.sentence_speech import SpokenSentence
from talkinghead.speech.turn_report import TurnTimes
from talkinghead.types import AudioClip, FloatArray

_POLL_S = 0.05
_SAMPLE_RATE = 16_000


@dataclass(eq=False)
class Turn:
    """One turn: a question and its reply.

    Attributes:
        number: Number of the turn, counted from 1.
        cancel: Once set, all stages of the turn stop.
        started_s: When the question ended, on the clock of `time.monotonic`.
        times: Completion times of the stages.
        question: The text of the question; empty for a text that is only spoken.
        reply: Number of the reply in the live avatar; None before its first audio.
        sentences: The sentences of the reply that were synthesised so far.
        num_shown: Number of sentences whose playback has started.
        played_s: Duration of the speech that was played.
        num_frames: Number of frames of the reply that were played.
        audio: Speech of the reply, for its recording.
        sample_rate: Sample rate of `audio` in Hz; 0 before the first audio.
    """

    number: int
    cancel: threading.Event = field(default_factory=threading.Event)
    started_s: float = field(default_factory=time.monotonic)
    times: TurnTimes = field(default_factory=TurnTimes)
    question: str = ""
    reply: int | None = None
    sentences: list[SpokenSentence] = field(default_factory=list)
    num_shown: int = 0
    played_s: float = 0.0
    num_frames: int = 0
    audio: list[FloatArray] = field(default_factory=list)
    sample_rate: int = 0

    def mark(self, name: str) -> None:
        """Record the time at which a stage is completed for the first time."""
        if getattr(self.times, name) is None:
            setattr(self.times, name, time.monotonic() - self.started_s)

    @property
    def shown_text(self) -> str:
        """The part of the reply whose playback has started."""
        return " ".join(sentence.text for sentence in self.sentences[: self.num_shown])


class Transcription:
    """The transcription of a question in a thread.

    Args:
        stt: Speech recognition.
        samples: float32 [num_samples] in [-1, 1] at 16 kHz.
        on_text: Function that takes the text as soon as it is known, unless it is empty.

    Attributes:
        cancel: Set it if the result is not needed.
    """

    def __init__(
        self, stt: SpeechToText, samples: FloatArray, on_text: Callable[[str], None]
    ) -> None:
        self.cancel = threading.Event()
        self._on_text = on_text
        self._stt, self._clip = stt, AudioClip(samples, _SAMPLE_RATE)
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="transcribe", daemon=True).start()

    def result(self, cancel: threading.Event) -> tuple[str, str | None]:
        """Wait for the text and its language; the text is empty without speech."""
        while not cancel.is_set():
            try:
                transcript = self._results.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(transcript, Exception):
                raise transcript
            return transcript.text.strip(), transcript.language
        self.cancel.set()
        return "", None

    def _work(self) -> None:
        try:
            transcript = self._stt.transcribe(self._clip, self.cancel)
            if transcript.text.strip() and not self.cancel.is_set():
                self._on_text(transcript.text.strip())
            self._results.put(transcript)
        except Exception as error:  # noqa: BLE001 - raised again by result()
            self._results.put(error)
