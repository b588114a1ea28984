"""Protocols of speech providers: speech to text, language models and text to speech.

To add a provider, write one class in one file and one YAML file:

1. `speech/tts/NAME.py` (or `stt/`, `llm/`): a class with the protocol's methods, without a base
   class. It imports its provider's library when it is constructed, so that a missing package is a
   `DependencyError` that names what to install.
2. `conf/tts/NAME.yaml`: `_target_` with the class, such as `talkinghead.speech.tts.beep.Beep`, and
   the options that differ from the defaults. The command line option is then `tts=NAME`.

A voice that knows the times of its phonemes also has the method of `TimedTextToSpeech`, and a voice
that can express emotions that of `ExpressiveTextToSpeech`.

All adapters raise `SpeechError` or `DependencyError`, and are safe for concurrent callers: threads
may share one, and a cancellation stops its own caller only. Once `cancel` is set, iterators end at
their next item, and `transcribe` returns the text recognised so far. A `Conversation` uses a
provider from one thread at a time, so a provider that is not shared need not be safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal, Protocol, runtime_checkable

from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.types import AudioClip, FloatArray


@dataclass(frozen=True)
class Word:
    """A word of a transcript, with times in seconds from the start of the audio."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """Recognised text, with the language and, if available, the times of the words.

    Attributes:
        text: The text; empty if the audio holds no speech.
        language: Two-letter code (ISO 639-1); None if unknown.
        words: The words with their times; empty if the provider gives no times.
    """

    text: str
    language: str | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Message:
    """A message of a conversation, with the role of the sender."""

    role: Literal["system", "user", "assistant"]
    content: str


@runtime_checkable
class SpeechToText(Protocol):
    """Protocol of speech recognition.

    Example:
        >>> class FixedTranscript:
        ...     def transcribe(self, audio, cancel=None):
        ...         return Transcript("Hello.", "en")
        ...
        ...     def stream(self, chunks, sample_rate, cancel=None):
        ...         for utterance in stream_utterances(chunks, sample_rate, cancel=cancel):
        ...             yield self.transcribe(AudioClip(utterance.samples, 16_000), cancel)
    """

    def transcribe(self, audio: AudioClip, cancel: Event | None = None) -> Transcript:
        """Transcribe a clip.

        Raises:
            SpeechError: The provider failed, or exceeded its timeout.
        """
        ...

    def stream(
        self, chunks: Iterable[FloatArray], sample_rate: int, cancel: Event | None = None
    ) -> Iterator[Transcript]:
        """Yield one transcript per utterance of a stream, as soon as the utterance has ended.

        The chunks are mono, float32 [num_samples] in [-1, 1], of any length, at `sample_rate` Hz.

        Raises:
            SpeechError: The provider failed, or exceeded its timeout.
        """
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """Protocol of a language model that generates the replies of a conversation.

    Example:
        >>> class Shout:
        ...     def reply(self, messages, cancel=None):
        ...         for word in messages[-1].content.upper().split():
        ...             if cancel is not None and cancel.is_set():
        ...                 return
        ...             yield f"{word} "
    """

    def reply(self, messages: Sequence[Message], cancel: Event | None = None) -> Iterator[str]:
        """Yield the pieces of the next message as they are generated.

        Raises:
            SpeechError: The provider failed, or produced nothing for longer than its timeout. The
                pieces before the failure were yielded.
        """
        ...


@runtime_checkable
class PreparingModel(Protocol):
    """Protocol of a language model that can process messages before they are needed."""

    def prepare(self, messages: Sequence[Message]) -> None:
        """Process the messages with which the next request will start; errors are ignored."""
        ...


@runtime_checkable
class TextToSpeech(Protocol):
    """Protocol of speech synthesis.

    Example:
        >>> class Beep:
        ...     sample_rate = 16_000
        ...
        ...     def speak(self, text, cancel=None):
        ...         for _ in text.split():
        ...             yield 0.1 * np.sin(np.arange(4000) * 0.2).astype(np.float32)
    """

    @property
    def sample_rate(self) -> int:
        """Sample rate of the speech in Hz."""
        ...

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """Yield the speech of a text in chunks: float32 [num_samples] in [-1, 1], mono.

        Yields nothing if the text contains nothing that can be spoken.

        Raises:
            SpeechError: The provider failed, or produced nothing for longer than its timeout.
        """
        ...


@runtime_checkable
class TextChecker(Protocol):
    """Protocol of a voice that can tell before the synthesis whether it can speak a text."""

    def check_text(self, text: str) -> None:
        """Check a text.

        Raises:
            UsageError: The voice cannot speak the text; the message names a voice that can.
        """
        ...


@runtime_checkable
class TimedTextToSpeech(TextToSpeech, Protocol):
    """Protocol of speech synthesis with the times of the phonemes.

    A class whose voices do not all give phonemes has an attribute `is_timed`, which is False for a
    voice that gives none.

    Example:
        >>> class TimedBeep(Beep):
        ...     def speak_timed(self, text, cancel=None):
        ...         for samples in self.speak(text, cancel):
        ...             yield TimedSpeech(samples, (Phoneme("p", 0.0, 0.1),))
    """

    def speak_timed(self, text: str, cancel: Event | None = None) -> Iterator[TimedSpeech]:
        """Yield the speech of `speak` with the phonemes of each chunk, or before it.

        Raises:
            SpeechError: The provider failed, or produced nothing for longer than its timeout.
        """
        ...


@runtime_checkable
class ExpressiveTextToSpeech(TextToSpeech, Protocol):
    """Protocol of speech synthesis that can express emotions.

    Example:
        >>> class MoodyBeep(Beep):
        ...     def with_emotion(self, emotion):
        ...         return LowBeep() if emotion.name == "sad" else self
    """

    def with_emotion(self, emotion: Emotion) -> TextToSpeech:
        """Return a voice with the same sample rate that expresses an emotion."""
        ...


def with_emotion(voice: TextToSpeech, emotion: Emotion | None) -> TextToSpeech:
    """Return the voice with an emotion if it can express emotions; None changes nothing."""
    if emotion is None or not isinstance(voice, ExpressiveTextToSpeech):
        return voice
    return voice.with_emotion(emotion)


def gives_phonemes(voice: TextToSpeech) -> bool:
    """Return whether a voice gives the phonemes of its speech with their times."""
    return isinstance(voice, TimedTextToSpeech) and getattr(voice, "is_timed", True)


def speak_timed(
    voice: TextToSpeech, text: str, cancel: Event | None = None
) -> Iterator[TimedSpeech]:
    """Yield the speech of any voice, with phonemes if the voice is a `TimedTextToSpeech`."""
    if isinstance(voice, TimedTextToSpeech):
        yield from voice.speak_timed(text, cancel)
    else:
        yield from map(TimedSpeech, voice.speak(text, cancel))
