"""Read speech from a file, from memory or from a stream, in chunks at any sample rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from numbers import Real
from pathlib import Path
from threading import Event, Lock
from typing import Any, TypeAlias, cast

import numpy as np

from talkinghead.errors import MediaError, UsageError
from talkinghead.media.audio_decoding import Resampler, rechunk
from talkinghead.media.audio_samples import to_mono_float32
from talkinghead.media.container import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from talkinghead.media.reader import probe, stream_audio
from talkinghead.media.timing import samples_to_seconds
from talkinghead.predict.audio.phonemes import PhonemeTrack, TimedSpeech
from talkinghead.predict.source.head.expression.emotion_track import EmotionTrack
from talkinghead.types import AudioClip, FloatArray


class SpeechStream:
    """A stream of speech that is still being produced, for readers at different speeds.

    The reader that first needs more speech takes the next chunk from the source and appends it to
    the queues of all readers. In a prediction the readers are the generator and the audio track.
    The distance between them is limited by the short queues of the pipeline. Safe for concurrent
    readers; once reading has begun, another reader raises a `UsageError`.

    Args:
        chunks: float32 [num_samples] in [-1, 1], mono, of any length, or other samples that
            `to_mono_float32` accepts, or the same with phonemes and emotions as `TimedSpeech`. A
            generator is closed when the last reader closes. Exceptions of the iterable are raised
            in the readers.
        sample_rate: sample rate in Hz.
        cancel: event that is set when a reader or the prediction closes before the end, for a
            source that may block.

    Attributes:
        phonemes: the phonemes of the chunks that were read.
        emotions: their emotions.

    Example:
        >>> stream = SpeechStream(voice.stream("Hello."), 22_050)
        >>> predictor.render("photo.jpg", stream, "hello.mp4")
    """

    def __init__(
        self,
        chunks: Iterable[FloatArray | TimedSpeech],
        sample_rate: int,
        cancel: Event | None = None,
    ) -> None:
        if isinstance(chunks, bytes | bytearray | memoryview | str) or not hasattr(
            chunks, "__iter__"
        ):
            raise UsageError(
                f"the chunks of the speech are {type(chunks).__name__}; expected an iterable of "
                "arrays of samples"
            )
        self.sample_rate = _checked_rate(sample_rate)
        self.phonemes, self.emotions = PhonemeTrack(), EmotionTrack()
        self._chunks = iter(chunks)
        self._cancel = cancel or Event()
        self._lock = Lock()
        self._readers: list[SpeechReader] = []
        self._num_samples = 0
        self._has_begun = self._has_ended = False
        self._failure: BaseException | None = None

    def read(self, sample_rate: int) -> SpeechReader:
        """Return a new reader that resamples to `sample_rate`.

        Raises:
            UsageError: Reading has begun, so the new reader would miss the start.
        """
        with self._lock:
            if self._has_begun:
                raise UsageError(
                    "this speech stream has been read, and a stream can be read once: make another "
                    "stream, or keep its chunks in an AudioClip"
                )
            reader = SpeechReader(self, Resampler(self.sample_rate, sample_rate))
            self._readers.append(reader)
            return reader

    def advance(self, reader: SpeechReader) -> bool:
        """Append the next chunk to all readers, and return whether more chunks may follow.

        No chunk is read if another thread has just added one to the queue of this reader.
        """
        with self._lock:
            if reader.queue:
                return True
            if self._failure is not None:
                raise self._failure
            if not self._has_ended:
                self._take_chunk()
            return not self._has_ended

    def cancel(self) -> None:
        """Set the event that cancels the source, unless the speech has ended."""
        if not self._has_ended:
            self._cancel.set()

    def remove(self, reader: SpeechReader) -> None:
        """Remove a reader, and close the source if no reader is left."""
        self.cancel()
        with self._lock:
            if reader in self._readers:
                self._readers.remove(reader)
            if not self._readers and isinstance(self._chunks, Generator):
                self._chunks.close()

    def _take_chunk(self) -> None:
        self._has_begun = True
        try:
            item = next(self._chunks, None)
            if isinstance(item, TimedSpeech):
                time_s = self._num_samples / self.sample_rate
                self.phonemes.add(item.phonemes, time_s)
                self.emotions.add(item.emotion, time_s)
                item = item.samples
            chunk = None if item is None else to_mono_float32(item, "a chunk of the speech")
            if chunk is not None:
                self._num_samples += len(chunk)
            elif not self._num_samples:
                raise MediaError("the speech ended before its first sample: give some speech")
        except BaseException as error:
            self._failure, self._has_ended = error, True
            raise
        self._has_ended = chunk is None
        for reader in self._readers:
            reader.append(chunk)


class SpeechReader(Iterator[FloatArray]):
    """Iterator over the chunks of a `SpeechStream`: float32 [num_samples] in [-1, 1].

    `queue` contains the chunks that were read for other readers.
    """

    def __init__(self, stream: SpeechStream, resampler: Resampler) -> None:
        self._stream, self._resampler = stream, resampler
        self.queue: deque[FloatArray] = deque()

    def __next__(self) -> FloatArray:
        while not self.queue and self._stream.advance(self):
            pass
        if not self.queue:
            raise StopIteration
        return self.queue.popleft()

    def append(self, chunk: FloatArray | None) -> None:
        """Add the next chunk of the stream; None marks the end."""
        if chunk is None:
            self.queue.extend(self._resampler.flush())
        elif len(chunk):
            self.queue.extend(self._resampler.push(chunk))

    def close(self) -> None:
        """Stop reading."""
        self._stream.remove(self)


SpeechInput: TypeAlias = str | Path | AudioClip | SpeechStream
"""A file with audio, mono speech in memory, or a stream of speech."""
SpeechInputs: TypeAlias = SpeechInput | Sequence[SpeechInput]
"""The speech of all faces, or a list with the speech of each face."""


def read_speeches(audio: SpeechInputs) -> list[Speech]:
    """Open one speech, or the speech of each face.

    Raises:
        MediaError: As for `Speech`.
        UsageError: As for `Speech`, or the list is empty.
    """
    return [Speech(one) for one in list_speeches(audio)]


def list_speeches(audio: SpeechInputs) -> list[SpeechInput]:
    """Return a list of speeches: the given one, or one with a single item.

    Raises:
        UsageError: The list is empty.
    """
    if isinstance(audio, str | bytes) or not isinstance(audio, Sequence):
        return [audio]
    if not audio:
        raise UsageError("audio=[] is empty: give one file, or a file for each face")
    # `Speech` refuses a list of samples.
    is_list = all(isinstance(one, str | Path | AudioClip | SpeechStream) for one in audio)
    return list(audio) if is_list else [cast(SpeechInput, audio)]


def longest_duration_s(speeches: Iterable[Speech]) -> Fraction | None:
    """Return the longest estimated duration in seconds, None if one is unknown."""
    durations_s = [speech.estimated_duration_s for speech in speeches]
    known_s = [duration_s for duration_s in durations_s if duration_s is not None]
    return max(known_s) if len(known_s) == len(durations_s) else None


class Speech:
    """The speech of one prediction.

    Attributes:
        sample_rate: original sample rate in Hz.
        estimated_duration_s: duration in the file's header, which may be inexact; None for a
            stream.
        phonemes: the phonemes of a stream that were read so far; none for other speech.
        emotions: the emotions, in the same way.

    Raises:
        MediaError: The file is missing or has no audio; there are no samples, or none is finite.
        UsageError: The speech is of another type, or its sample rate is not positive.
    """

    def __init__(self, audio: SpeechInput) -> None:
        self._audio = audio
        self.estimated_duration_s: Fraction | None = None
        self.phonemes, self.emotions = PhonemeTrack(), EmotionTrack()
        if isinstance(audio, SpeechStream):
            self.sample_rate = audio.sample_rate
            self.phonemes, self.emotions = audio.phonemes, audio.emotions
        elif isinstance(audio, AudioClip):
            self._audio = audio = _checked_clip(audio)
            self.sample_rate, self.estimated_duration_s = audio.sample_rate, audio.duration_s
        elif not isinstance(audio, str | Path):
            raise UsageError(
                f"the speech is {type(audio).__name__}; expected a file, an AudioClip(samples, "
                "sample_rate) or a SpeechStream(chunks, sample_rate)"
            )
        else:
            info = probe(audio)
            if not info.sample_rate:
                raise MediaError(f"{audio}: has no audio; expected speech: use another file")
            self.sample_rate, self.estimated_duration_s = info.sample_rate, info.duration_s

    def chunks(self, sample_rate: int) -> Generator[FloatArray] | SpeechReader:
        """Return the samples at a sample rate in chunks: mono float32 [num_samples] in [-1, 1]."""
        if isinstance(self._audio, SpeechStream):
            return self._audio.read(sample_rate)
        return self._whole(self._audio, sample_rate)

    def cancel(self) -> None:
        """Cancel the source of a stream that has not ended; other speech needs no cancellation."""
        if isinstance(self._audio, SpeechStream):
            self._audio.cancel()

    def _whole(self, audio: str | Path | AudioClip, sample_rate: int) -> Generator[FloatArray]:
        if not isinstance(audio, AudioClip):
            yield from stream_audio(audio, sample_rate)
            return
        # Use the same resampler as for files, so that a file and its samples give the same frames.
        samples, size = audio.samples, audio.sample_rate
        resampler = Resampler(audio.sample_rate, sample_rate)
        pieces = (resampler.push(samples[i : i + size]) for i in range(0, len(samples), size))
        # `flush` returns a generator, so the flush itself runs after the last piece.
        yield from rechunk(chain(chain.from_iterable(pieces), resampler.flush()), sample_rate)


@contextmanager
def cancelling(speeches: Iterable[Speech]) -> Generator[None]:
    """Cancel the streams that have not ended when the context ends, so that no reader blocks."""
    try:
        yield
    finally:
        for speech in speeches:
            speech.cancel()


class SpeechChunks(Iterator[FloatArray]):
    """Chunks of speech, optionally followed by endless silence.

    Attributes:
        duration_s: duration of the speech, None until it has ended.
    """

    def __init__(self, chunks: Iterator[FloatArray], sample_rate: int, endless: bool) -> None:
        self._chunks, self._sample_rate, self._endless = chunks, sample_rate, endless
        self._num_samples = 0
        self.duration_s: Fraction | None = None

    def __next__(self) -> FloatArray:
        chunk = None if self.duration_s is not None else next(self._chunks, None)
        if chunk is not None:
            self._num_samples += len(chunk)
            return chunk
        self.duration_s = samples_to_seconds(self._num_samples, self._sample_rate)
        if not self._endless:
            raise StopIteration
        return np.zeros(self._sample_rate, np.float32)


def _checked_rate(sample_rate: Any) -> int:
    is_real = isinstance(sample_rate, Real) and not isinstance(sample_rate, bool)
    # NaN is in no range.
    in_range = is_real and MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE
    if not in_range or sample_rate != int(sample_rate):
        raise UsageError(
            f"sample_rate={sample_rate!r}: expected a whole number of Hz from "
            f"{MIN_SAMPLE_RATE:,} to {MAX_SAMPLE_RATE:,}"
        )
    return int(sample_rate)


def _checked_clip(clip: AudioClip) -> AudioClip:
    """Return a clip as mono float32 samples.

    Raises:
        MediaError: The samples have another type or shape, there are none, or none is finite.
    """
    rate, samples = _checked_rate(clip.sample_rate), to_mono_float32(clip.samples, "the speech")
    if not len(samples):
        raise MediaError("the speech is of zero length; expected float samples [num_samples]")
    if not samples.any() and not np.isfinite(np.asarray(clip.samples, np.float64)).any():
        raise MediaError("the speech contains only NaN; expected finite samples [num_samples]")
    return AudioClip(samples, rate)
