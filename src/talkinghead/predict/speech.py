"""The speech's side of a prediction: a file or samples, as chunks at any rate."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from torchaudio.functional import resample

from talkinghead.errors import MediaError
from talkinghead.media.reader import probe, stream_audio
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


def _check_samples(samples: FloatArray) -> None:
    if samples.ndim != 1 or not len(samples) or np.isnan(samples).all():
        fault = "not mono" if samples.ndim != 1 else "all NaN" if len(samples) else "of zero length"
        raise MediaError(
            f"the speech is {fault} (shape {samples.shape}); expected float samples [num_samples]"
        )
