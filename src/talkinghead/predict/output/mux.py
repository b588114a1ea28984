"""The end of a prediction: pictures and sound into a file, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.media.timing import num_frames_for, samples_to_seconds, seconds_to_samples
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.audio.audio_source import Speech
from talkinghead.predict.output.label import Label
from talkinghead.types import FloatArray, UInt8Array

Progress = Callable[[int, int], None]
"""Called with the number of frames written and of all frames, 0 where that is not known."""


class Frames(Protocol):
    """What is written: (image uint8 [height, width, 3] RGB, time_s), and how many came so far."""

    fps: Fraction
    num_frames: int

    def __iter__(self) -> Iterator[tuple[UInt8Array, Fraction]]: ...


def write_video(
    prediction: Frames,
    speech: Speech,
    writer: VideoWriter,
    progress: Progress | None,
    label: str | None = None,
    video_s: Fraction | None = None,
) -> Fraction:
    """Encodes pictures and sound as they come, and returns the sound's duration in seconds.

    Args:
        prediction: the pictures.
        speech: the sound.
        writer: open.
        progress: told about every frame.
        label: to be put into every picture.
        video_s: about how long the pictures go on; after the speech with silence. None where they
            end with it.
    """
    draw = Label(label, writer.width, writer.height) if label else None
    total = 0
    if speech.estimated_duration_s is not None:
        longest_s = max(speech.estimated_duration_s, video_s or Fraction(0))
        total = num_frames_for(longest_s, prediction.fps)
    end_s = Fraction(0)
    with closing(speech.chunks(speech.sample_rate)) as samples:
        sound = _SoundTrack(writer, samples, speech.sample_rate)
        for image, time_s in prediction:
            sound.write_until(time_s)
            if video_s is not None:
                sound.pad_until(time_s)
            end_s = time_s + 1 / prediction.fps
            writer.write(draw(image) if draw else image, time_s)
            if progress:
                progress(prediction.num_frames, total)
        sound.write_until(None)
        if video_s is not None:
            sound.pad_until(end_s)
    return sound.duration_s


class _SoundTrack:
    """Writes the speech a little ahead of the pictures, so that players find both together."""

    def __init__(
        self, writer: VideoWriter, samples: Iterator[FloatArray], sample_rate: int
    ) -> None:
        self._writer, self._samples, self._sample_rate = writer, samples, sample_rate
        self._written = 0

    @property
    def duration_s(self) -> Fraction:
        return samples_to_seconds(self._written, self._sample_rate)

    def write_until(self, time_s: Fraction | None) -> None:
        """The speech up to a moment, or all the rest."""
        while time_s is None or self.duration_s <= time_s:
            chunk = next(self._samples, None)
            if chunk is None:
                return
            self._write(chunk)

    def pad_until(self, time_s: Fraction) -> None:
        """Silence up to a moment, where the speech has ended before."""
        missing = seconds_to_samples(time_s, self._sample_rate) - self._written
        self._write(np.zeros(max(0, missing), np.float32))

    def _write(self, chunk: FloatArray) -> None:
        self._writer.write_audio(chunk)
        self._written += len(chunk)


def refuse_overwriting(output: Path, *inputs: object) -> None:
    """Raises UsageError where the output is one of the inputs' files."""
    for given in inputs:
        if (
            isinstance(given, str | Path)
            and output.exists()
            and Path(given).exists()
            and output.samefile(given)
        ):
            raise UsageError(
                f"output={output} is also an input and would be overwritten: choose another name"
            )
