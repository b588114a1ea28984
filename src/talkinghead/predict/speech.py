"""The speech's side of a prediction: a file or samples, as chunks at any rate."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torchaudio.functional import resample

from talkinghead.errors import MediaError
from talkinghead.media.reader import probe, stream_audio
from talkinghead.media.timing import samples_to_seconds
from talkinghead.types import AudioClip, FloatArray


class Speech:
    """A file with sound, or mono speech in memory.

    Attributes:
        sample_rate: its own, in Hz.
        estimated_duration_s: what the file says of its length; the exact one is known when it has
            been decoded.

    Raises:
        MediaError: the file is missing or has no sound; the samples are none or all NaN.
    """

    def __init__(self, audio: str | Path | AudioClip) -> None:
        self._clip = audio if isinstance(audio, AudioClip) else None
        if isinstance(audio, AudioClip):
            _check_samples(audio.samples)
            self.sample_rate, self.estimated_duration_s = audio.sample_rate, audio.duration_s
        else:
            self._path = Path(audio)
            info = probe(self._path)
            if not info.sample_rate:
                raise MediaError(f"{audio}: has no sound; expected speech: use another file")
            self.sample_rate, self.estimated_duration_s = info.sample_rate, info.duration_s

    def chunks(self, sample_rate: int) -> Generator[FloatArray]:
        """Mono float32 [n] in [-1, 1] at this rate, piece by piece.

        Raises:
            MediaError: the file cannot be decoded, or holds nothing.
        """
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


def _check_samples(samples: FloatArray) -> None:
    if samples.ndim != 1 or not len(samples) or np.isnan(samples).all():
        fault = "not mono" if samples.ndim != 1 else "all NaN" if len(samples) else "of zero length"
        raise MediaError(
            f"the speech is {fault} (shape {samples.shape}); expected float samples [num_samples]"
        )
