"""Phonemes with times, as a text-to-speech voice reports them along with its audio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from threading import Lock

from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.types import FloatArray


@dataclass(frozen=True)
class Phoneme:
    """A phoneme and its time span in seconds.

    Attributes:
        symbol: Symbol of the International Phonetic Alphabet (IPA), such as "p" or "oʊ".
        start_s: Time at which the articulation begins. For a stop this is the start of the closure,
            not the burst.
        end_s: Time at which the next phoneme begins.
    """

    symbol: str
    start_s: float
    end_s: float

    def later(self, offset_s: float) -> Phoneme:
        """Return the phoneme with both times increased by `offset_s`."""
        return replace(self, start_s=self.start_s + offset_s, end_s=self.end_s + offset_s)


@dataclass(frozen=True, eq=False)
class TimedSpeech:
    """A chunk of speech, phonemes that begin in the chunk or after it, and its emotion.

    Attributes:
        samples: float32 [num_samples] in [-1, 1], mono.
        phonemes: Phonemes with times from the start of the chunk. Of all chunks of a stream, each
            phoneme is in one chunk only, which does not end after the phoneme begins.
        emotion: Emotion from the start of the chunk on; None keeps that of the chunk before.
    """

    samples: FloatArray
    phonemes: tuple[Phoneme, ...] = ()
    emotion: Emotion | None = None


class PhonemeTrack:
    """The phonemes of a stream of speech, added by one thread and read by another.

    Example:
        >>> track = PhonemeTrack()
        >>> track.add([Phoneme("p", 0.0, 0.1)], offset_s=2.0)
        >>> track.between(2.0, 2.5)
        [Phoneme(symbol='p', start_s=2.0, end_s=2.1)]
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._phonemes: list[Phoneme] = []

    def add(self, phonemes: Iterable[Phoneme], offset_s: float = 0.0) -> None:
        """Add phonemes whose times count from `offset_s` of the stream."""
        with self._lock:
            self._phonemes.extend(phoneme.later(offset_s) for phoneme in phonemes)

    def between(self, start_s: float, end_s: float) -> list[Phoneme]:
        """Return the phonemes that overlap a time span."""
        with self._lock:
            return [p for p in self._phonemes if p.end_s > start_s and p.start_s < end_s]

    def drop_before(self, time_s: float) -> None:
        """Free the memory of the phonemes that end before a time."""
        with self._lock:
            self._phonemes = [p for p in self._phonemes if p.end_s >= time_s]

    def clear(self) -> None:
        """Remove all phonemes."""
        with self._lock:
            self._phonemes.clear()


def process_timed(
    speech: Iterable[TimedSpeech],
    process: Callable[[Iterator[FloatArray]], Iterator[FloatArray]],
    source_rate: int,
    sample_rate: int,
    delay_s: float = 0.0,
) -> Iterator[TimedSpeech]:
    """Yield processed speech with the phonemes and the emotions of the original speech.

    Args:
        speech: the original speech.
        process: function from the chunks of samples to other chunks, such as `Resampler.stream`.
        source_rate: sample rate of the original speech in Hz.
        sample_rate: sample rate of the processed speech in Hz.
        delay_s: time in seconds by which the processed speech is later.
    """
    # Phonemes and emotions that were read and not yet yielded; times are in the processed speech.
    phonemes: list[Phoneme] = []
    emotions: list[Emotion] = []

    def samples() -> Iterator[FloatArray]:
        num_samples = 0
        for chunk in speech:
            offset_s = delay_s + num_samples / source_rate
            phonemes.extend(phoneme.later(offset_s) for phoneme in chunk.phonemes)
            if chunk.emotion is not None:
                emotions.append(chunk.emotion)
            num_samples += len(chunk.samples)
            yield chunk.samples

    num_samples = 0
    for chunk in process(samples()):
        start_s = num_samples / sample_rate
        shifted = tuple(phoneme.later(-start_s) for phoneme in phonemes)
        yield TimedSpeech(chunk, shifted, emotions[-1] if emotions else None)
        phonemes.clear()
        emotions.clear()
        num_samples += len(chunk)
