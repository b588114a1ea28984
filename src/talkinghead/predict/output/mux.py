"""Write the frames and the audio of a prediction to a file, interleaved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.media.timing import num_frames_for, samples_to_seconds, seconds_to_samples
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.audio.audio_source import Speech
from talkinghead.predict.output.label import Label
from talkinghead.predict.prediction import Prediction
from talkinghead.types import FloatArray

Progress = Callable[[int, int], None]
"""Callback that takes the number of written frames and the number of all frames (0: unknown)."""


def write_video(
    prediction: Prediction,
    speech: Speech,
    writer: VideoWriter,
    progress: Progress | None,
    label: str | None = None,
) -> Fraction:
    """Encode frames and audio as they arrive, and return the duration of the audio in seconds.

    If `prediction.video_s` is set, the audio is padded with silence to the end of the video. The
    text `label` is drawn into every frame.
    """
    draw = Label(label, writer.width, writer.height) if label else None
    total, video_s = 0, prediction.video_s
    if speech.estimated_duration_s is not None:
        longest_s = max(speech.estimated_duration_s, video_s or Fraction(0))
        total = num_frames_for(longest_s, prediction.fps)
    end_s = Fraction(0)
    with closing(speech.chunks(speech.sample_rate)) as samples:
        track = _AudioTrack(writer, samples, speech.sample_rate)
        for image, time_s in prediction:
            track.write_until(time_s)
            if video_s is not None:
                track.pad_until(time_s)
            end_s = time_s + 1 / prediction.fps
            writer.write(draw(image) if draw else image, time_s)
            if progress:
                progress(prediction.num_frames, total)
        track.write_until(None)
        if video_s is not None:
            track.pad_until(end_s)
    return track.duration_s


class _AudioTrack:
    """An audio track written slightly ahead of the frames, for players with small buffers."""

    def __init__(
        self, writer: VideoWriter, samples: Iterator[FloatArray], sample_rate: int
    ) -> None:
        self._writer, self._samples, self._sample_rate = writer, samples, sample_rate
        self._num_samples = 0

    @property
    def duration_s(self) -> Fraction:
        return samples_to_seconds(self._num_samples, self._sample_rate)

    def write_until(self, time_s: Fraction | None) -> None:
        """Write the speech up to a time, or all remaining speech if the time is None."""
        while time_s is None or self.duration_s <= time_s:
            chunk = next(self._samples, None)
            if chunk is None:
                return
            self._write(chunk)

    def pad_until(self, time_s: Fraction) -> None:
        """Write silence up to a time if the speech ends before that time."""
        missing = seconds_to_samples(time_s, self._sample_rate) - self._num_samples
        self._write(np.zeros(max(0, missing), np.float32))

    def _write(self, chunk: FloatArray) -> None:
        self._writer.write_audio(chunk)
        self._num_samples += len(chunk)


def refuse_overwriting(output: Path, *inputs: object) -> None:
    """Raise `UsageError` if the output is the same file as an input."""
    paths = [Path(given) for given in inputs if isinstance(given, str | Path)]
    if output.exists() and any(path.exists() and output.samefile(path) for path in paths):
        raise UsageError(
            f"output={output} is also an input and would be overwritten: choose another name"
        )
