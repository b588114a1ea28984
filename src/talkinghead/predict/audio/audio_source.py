"""The speech's side of a prediction: a file, samples or a stream, as chunks at any rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from threading import Event, Lock
from typing import TypeAlias

import numpy as np
import torch
from torchaudio.functional import resample

from talkinghead.errors import MediaError, UsageError
from talkinghead.media.audio_decoding import Resampler
from talkinghead.media.reader import probe, stream_audio
from talkinghead.media.timing import samples_to_seconds
from talkinghead.types import AudioClip, FloatArray


class SpeechStream:
    """Speech that is still being made, heard once, by several readers side by side.

    Whoever needs more asks the source for it, and every reader gets it; what one has had and
    another has not yet is kept. A prediction's sound follows its pictures, so that is what its
    short queues hold.

    Args:
        chunks: float32 [num_samples] in [-1, 1], mono, of any length. If it can be closed, it is,
            with its last reader. Its errors are its readers' errors.
        sample_rate: theirs, in Hz.
        cancel: set when a reader leaves before the end, for a source that waits for others.
    """

    def __init__(
        self, chunks: Iterable[FloatArray], sample_rate: int, cancel: Event | None = None
    ) -> None:
        self.sample_rate = sample_rate
        self._chunks = iter(chunks)
        self._cancel = cancel or Event()
        self._lock = Lock()
        self._readers: list[SpeechReader] = []
        self._num_samples = 0
        self._has_begun = self._has_ended = False
        self._failure: BaseException | None = None

    def read(self, sample_rate: int) -> SpeechReader:
        """A new reader, at this rate.

        Raises:
            UsageError: others have begun to read: it would miss what they have had.
        """
        with self._lock:
            if self._has_begun:
                raise UsageError(
                    "a stream of speech can be heard once, and this one was: make another stream, "
                    "or keep its chunks in an AudioClip"
                )
            reader = SpeechReader(self, Resampler(self.sample_rate, sample_rate))
            self._readers.append(reader)
            return reader

    def hand_out(self, reader: SpeechReader) -> bool:
        """Gives every reader the next chunk, unless another did while this one waited for its turn.

        Returns:
            Whether there may be more.
        """
        with self._lock:
            if reader.waiting:
                return True
            if self._failure is not None:
                raise self._failure
            if not self._has_ended:
                self._take()
            return not self._has_ended

    def leave(self, reader: SpeechReader) -> None:
        """A reader wants no more."""
        if not self._has_ended:
            self._cancel.set()
        with self._lock:
            if reader in self._readers:
                self._readers.remove(reader)
            if not self._readers and isinstance(self._chunks, Generator):
                self._chunks.close()

    def _take(self) -> None:
        self._has_begun = True
        try:
            chunk = next(self._chunks, None)
            if chunk is not None:
                chunk = _checked(chunk)
                self._num_samples += len(chunk)
            elif not self._num_samples:
                raise MediaError("the speech ended before it began: nothing in it can be heard")
        except BaseException as error:
            self._failure, self._has_ended = error, True
            raise
        self._has_ended = chunk is None
        for reader in self._readers:
            reader.take(chunk)


class SpeechReader(Iterator[FloatArray]):
    """One of those who hear a `SpeechStream`: chunks float32 [num_samples] in [-1, 1].

    Attributes:
        waiting: what others have had already.
    """

    def __init__(self, stream: SpeechStream, resampler: Resampler) -> None:
        self._stream, self._resampler = stream, resampler
        self.waiting: deque[FloatArray] = deque()

    def __next__(self) -> FloatArray:
        while not self.waiting and self._stream.hand_out(self):
            pass
        if not self.waiting:
            raise StopIteration
        return self.waiting.popleft()

    def take(self, chunk: FloatArray | None) -> None:
        """The stream's next chunk, None at its end."""
        if chunk is None:
            self.waiting.extend(self._resampler.flush())
        elif len(chunk):
            self.waiting.extend(self._resampler.push(chunk))

    def close(self) -> None:
        """Wants no more."""
        self._stream.leave(self)


SpeechInput: TypeAlias = str | Path | AudioClip | SpeechStream
"""A file with sound, mono speech in memory, or speech that is still being made."""


class Speech:
    """A file with sound, or mono speech in memory or still to come.

    Attributes:
        sample_rate: its own, in Hz.
        estimated_duration_s: what the file says of its length; the exact one is known when it has
            been decoded. None of a stream.

    Raises:
        MediaError: the file is missing or has no sound; the samples are none or all NaN.
    """

    sample_rate: int
    estimated_duration_s: Fraction | None

    def __init__(self, audio: SpeechInput) -> None:
        self._clip = audio if isinstance(audio, AudioClip) else None
        self._stream = audio if isinstance(audio, SpeechStream) else None
        if isinstance(audio, SpeechStream):
            self.sample_rate, self.estimated_duration_s = audio.sample_rate, None
        elif isinstance(audio, AudioClip):
            _check_samples(audio.samples)
            self.sample_rate, self.estimated_duration_s = audio.sample_rate, audio.duration_s
        else:
            self._path = Path(audio)
            info = probe(self._path)
            if not info.sample_rate:
                raise MediaError(f"{audio}: has no audio; expected speech: use another file")
            self.sample_rate, self.estimated_duration_s = info.sample_rate, info.duration_s

    def chunks(self, sample_rate: int) -> Generator[FloatArray] | SpeechReader:
        """Mono float32 [n] in [-1, 1] at this rate, piece by piece.

        Raises:
            MediaError: the file cannot be decoded, or holds nothing.
        """
        return self._stream.read(sample_rate) if self._stream else self._whole(sample_rate)

    def _whole(self, sample_rate: int) -> Generator[FloatArray]:
        if self._clip is None:
            yield from stream_audio(self._path, sample_rate)
            return
        samples = np.nan_to_num(self._clip.samples.astype(np.float32))
        if self._clip.sample_rate != sample_rate:
            samples = resample(
                torch.from_numpy(samples), self._clip.sample_rate, sample_rate
            ).numpy()
        for start in range(0, len(samples), sample_rate):
            yield samples[start : start + sample_rate]


class SpeechChunks(Iterator[FloatArray]):
    """Chunks of speech and, where it `goes_on`, silence after them without end.

    Attributes:
        duration_s: how long the speech is; known when it has ended.
    """

    def __init__(
        self, chunks: Iterator[FloatArray], sample_rate: int, goes_on: bool = False
    ) -> None:
        self._chunks, self._sample_rate, self._goes_on = chunks, sample_rate, goes_on
        self._num_samples = 0
        self.duration_s: Fraction | None = None

    def __next__(self) -> FloatArray:
        chunk = None if self.duration_s is not None else next(self._chunks, None)
        if chunk is not None:
            self._num_samples += len(chunk)
            return chunk
        self.duration_s = samples_to_seconds(self._num_samples, self._sample_rate)
        if not self._goes_on:
            raise StopIteration
        return np.zeros(self._sample_rate, np.float32)


def _checked(chunk: FloatArray) -> FloatArray:
    if chunk.ndim != 1 or not np.issubdtype(chunk.dtype, np.floating):
        raise MediaError(
            f"a chunk of the speech is {chunk.dtype} {list(chunk.shape)}; expected float32 "
            "[num_samples], mono in [-1, 1]"
        )
    return np.nan_to_num(chunk.astype(np.float32, copy=False))


def _check_samples(samples: FloatArray) -> None:
    if samples.ndim != 1 or not len(samples) or np.isnan(samples).all():
        fault = "not mono" if samples.ndim != 1 else "all NaN" if len(samples) else "of zero length"
        raise MediaError(
            f"the speech is {fault} (shape {samples.shape}); expected float samples [num_samples]"
        )
