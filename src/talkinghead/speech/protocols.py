"""What hears, thinks and speaks: three protocols, whoever provides them.

Every adapter is a class in a file of its own (`speech/stt/`, `speech/llm/`, `speech/tts/`), made by
Hydra from `conf/stt`, `conf/llm` and `conf/tts`. It imports its provider's library when it is made,
and what it raises is a `SpeechError` or a `DependencyError`. All may be used from any thread, by
one caller at a time.

Cancelling is a `threading.Event`: once it is set, iterators end at their next piece, and
`transcribe` gives what it has heard so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal, Protocol, runtime_checkable

from talkinghead.types import AudioClip, FloatArray


@dataclass(frozen=True)
class Word:
    """A word of a transcript, in seconds from the beginning of its sound."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """What was said. `text` is empty where nobody spoke.

    `language` is a two-letter code (ISO 639-1), None where it is not known; `words` are empty where
    the provider gives no times.
    """

    text: str
    language: str | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Message:
    """A part of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@runtime_checkable
class SpeechToText(Protocol):
    """Hears."""

    def transcribe(self, audio: AudioClip, cancel: Event | None = None) -> Transcript:
        """What is said in a clip.

        Raises:
            SpeechError: the provider failed, or took longer than its timeout.
        """
        ...

    def stream(
        self, chunks: Iterable[FloatArray], sample_rate: int, cancel: Event | None = None
    ) -> Iterator[Transcript]:
        """One transcript for each utterance of a stream, as soon as it has ended.

        Args:
            chunks: float32 [num_samples] in [-1, 1], mono, of any length.
            sample_rate: theirs, in Hz.
            cancel: ends it early.

        Raises:
            SpeechError: as `transcribe`.
        """
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """Thinks."""

    def reply(self, messages: Sequence[Message], cancel: Event | None = None) -> Iterator[str]:
        """The next message, piece by piece as it is written.

        Raises:
            SpeechError: the provider failed, or nothing came for longer than its timeout. What came
                before was given.
        """
        ...


@runtime_checkable
class TextToSpeech(Protocol):
    """Speaks. `sample_rate`: of what `speak` gives, in Hz."""

    @property
    def sample_rate(self) -> int:
        """Of what `speak` gives, in Hz."""
        ...

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """A text, spoken: float32 [num_samples] in [-1, 1], mono, piece by piece.

        Nothing where the text holds nothing that can be said.

        Raises:
            SpeechError: the provider failed, or nothing came for longer than its timeout.
        """
        ...
