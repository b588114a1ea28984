"""Lip priors: second predictions of the lip motion, with equal results for files and streams.

Shape suffixes: N blocks, S samples, T grid frames.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import UsageError
from talkinghead.types import AVSpec, FloatArray

_MAX_BLOCKS = 16


class LipPrior(Protocol):
    """A source of lip motion in addition to the generator's audio encoder.

    Speech is divided into blocks of equal length. The motion of a block depends only on its
    position, its samples, and a fixed amount of speech before and after it, so the division of the
    speech into chunks makes no difference. A source that needs no audio, such as a `LipCurve`, sets
    `past_s` and `ahead_s` to 0 and uses `first_frame`. It may also have a method `check_duration`,
    which is called with the number of frames when the speech has ended, and a method
    `speech_weights`, which returns a weight in [0, 1] for each frame of the windows, float32
    [N, T]: where it is below 1, there is no speech, and the generator's motion is left out. A prior
    that keeps a state instead of processing the speech around each block again has a method
    `start_stream`, which returns a `MotionStream`; streams then use it instead of the other two.

    Predictions and streams share a prior, so `predict_motion` must be safe for concurrent callers;
    those of this package are.

    Attributes:
        past_s: seconds of speech before a block that the block's motion depends on.
        block_s: seconds of a block, a whole number of frames.
        ahead_s: seconds of speech after a block that the block's motion depends on.
        sample_rate: sample rate of the speech in Hz.
        fps: frame rate of the lip motion.
        blend_weight: weight of this motion in [0, 1]; the rest is the weight of the generator's.

    Example:
        >>> class Curve:
        ...     past_s, block_s, ahead_s = Fraction(0), Fraction(2, 5), Fraction(0)
        ...     sample_rate, fps, blend_weight = 16_000, Fraction(25), 1.0
        ...
        ...     def __init__(self, motion):  # float32 [T, 20, 2], a multiple of ten frames
        ...         self.motion = motion
        ...
        ...     def predict_motion(self, windows, first_frame):
        ...         motion = self.motion[first_frame : first_frame + 10 * len(windows)]
        ...         return motion.reshape(len(windows), 10, 20, 2)
    """

    past_s: Fraction
    block_s: Fraction
    ahead_s: Fraction
    sample_rate: int
    fps: Fraction
    blend_weight: float

    def predict_motion(self, windows: FloatArray, first_frame: int) -> FloatArray:
        """Return the lip motion of consecutive blocks.

        Args:
            windows: float32 [N, S] in [-1, 1], each the samples before, in and after a block.
            first_frame: index of the first frame of the first block.

        Returns:
            float32 [N, T, 20, 2] in canonical pixels (see `lip_motion`), for the T frames of each
            block. Where the value is NaN, the generator's motion is used.
        """


class MotionStream(Protocol):
    """The prediction of a lip prior for one stream."""

    def push(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Append speech, float32 [num_samples] in [-1, 1].

        Returns:
            The motion [T, 20, 2] of the frames that are known now and were not before, and the
            weights [T] of speech; see `LipPrior`.
        """

    def samples_for(self, frame: int) -> int:
        """Return the number of samples after which the motion of a frame is known."""


class LipPriorStream:
    """A stream of a lip prior's motion, predicted as speech arrives.

    Raises:
        UsageError: The sample rate or frame rate of the prior differs from the spec's.
    """

    def __init__(self, lip_prior: LipPrior, spec: AVSpec) -> None:
        if (lip_prior.sample_rate, lip_prior.fps) != (spec.sample_rate, spec.fps):
            raise UsageError(
                f"the lip prior works at {lip_prior.sample_rate} Hz and {lip_prior.fps} frames/s, "
                f"the model at {spec.sample_rate} Hz and {spec.fps}: choose lip_prior=none"
            )
        self._lip_prior, self._spec = lip_prior, spec
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        start = getattr(self._lip_prior, "start_stream", None)
        self._stream: MotionStream = start() if start else _BlockStream(self._lip_prior, self._spec)
        self._num_samples = 0
        self._motion = torch.empty(0, 20, 2)
        self._weights = torch.empty(0)
        self._first_frame = 0  # Grid frame of the first entry of `_motion`.

    @property
    def num_frames(self) -> int:
        """Number of grid frames with known motion, including dropped frames."""
        return self._first_frame + len(self._motion)

    def samples_for(self, frame: int) -> int:
        """Return the number of samples after which the motion of a grid frame is known."""
        return self._stream.samples_for(frame)

    def push(self, samples: FloatArray) -> None:
        """Append speech: float32 [num_samples] in [-1, 1]."""
        self._num_samples += len(samples)
        motion, weights = self._stream.push(samples.astype(np.float32))
        self._motion = torch.cat([self._motion, torch.from_numpy(motion)])
        self._weights = torch.cat([self._weights, torch.from_numpy(weights)])

    def finish(self) -> None:
        """End the speech, and process the last samples as if silence followed."""
        check_duration = getattr(self._lip_prior, "check_duration", None)
        frame_size = self._spec.sample_rate / self._spec.fps
        if check_duration is not None:
            check_duration(int(self._num_samples / frame_size))
        num_frames = max(1, math.ceil(self._num_samples / frame_size))
        num_missing = self.samples_for(num_frames - 1) - self._num_samples
        self.push(np.zeros(max(0, num_missing), np.float32))

    def at(self, first: int, stop: int) -> Tensor:
        """Return the motion [stop - first, 20, 2] of grid frames; NaN where unknown."""
        motion = torch.full((stop - first, 20, 2), torch.nan)
        known = range(max(first, self._first_frame), min(stop, self.num_frames))
        if known:
            motion[known.start - first : known.stop - first] = self._motion[
                known.start - self._first_frame : known.stop - self._first_frame
            ]
        return motion

    def speech_weights_at(self, first: int, stop: int) -> Tensor:
        """Return the weights of speech [stop - first] of grid frames; 1 where unknown."""
        weights = torch.ones(stop - first)
        known = range(max(first, self._first_frame), min(stop, self.num_frames))
        if known:
            weights[known.start - first : known.stop - first] = self._weights[
                known.start - self._first_frame : known.stop - self._first_frame
            ]
        return weights

    def drop_before(self, frame: int) -> None:
        """Free the memory of all grid frames before `frame`."""
        dropped = min(max(0, frame - self._first_frame), len(self._motion))
        self._motion, self._first_frame = self._motion[dropped:], self._first_frame + dropped
        self._weights = self._weights[dropped:]


class _BlockStream:
    """The prediction of a lip prior that processes each block with the speech around it."""

    def __init__(self, lip_prior: LipPrior, spec: AVSpec) -> None:
        self._lip_prior = lip_prior
        spans = (lip_prior.past_s, lip_prior.block_s, lip_prior.ahead_s)
        self._past, self._block, self._ahead = (int(span * spec.sample_rate) for span in spans)
        self._block_frames = int(lip_prior.block_s * spec.fps)
        self._samples = np.zeros(self._past, np.float32)
        self._num_frames = 0

    def push(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Append speech (see `MotionStream.push`)."""
        self._samples = np.concatenate([self._samples, samples])
        length = self._past + self._block + self._ahead
        motions, weights = [np.empty((0, 20, 2), np.float32)], [np.empty(0, np.float32)]
        while len(self._samples) >= length:
            count = min(_MAX_BLOCKS, (len(self._samples) - length) // self._block + 1)
            view = np.lib.stride_tricks.sliding_window_view(self._samples, length)
            windows = view[: count * self._block : self._block]
            weights.append(self._speech_weights(windows))
            motion = self._lip_prior.predict_motion(windows, self._num_frames)
            motions.append(motion.reshape(-1, 20, 2))
            self._num_frames += len(motions[-1])
            self._samples = self._samples[count * self._block :]
        return np.concatenate(motions), np.concatenate(weights)

    def samples_for(self, frame: int) -> int:
        """Return the number of samples after which the motion of a frame is known."""
        return (frame // self._block_frames + 1) * self._block + self._ahead

    def _speech_weights(self, windows: FloatArray) -> FloatArray:
        measure = getattr(self._lip_prior, "speech_weights", None)
        if measure is None:
            return np.ones(len(windows) * self._block_frames, np.float32)
        return np.asarray(measure(windows), np.float32).flatten()


def predict_lip_motion(lip_prior: LipPrior, samples: FloatArray, spec: AVSpec) -> FloatArray:
    """Return the motion of a recording, float32 [T, 20, 2], with T rounded up to whole blocks.

    `samples` are float32 [num_samples] in [-1, 1] at the sample rate of the spec.
    """
    stream = LipPriorStream(lip_prior, spec)
    stream.push(samples)
    stream.finish()
    return stream.at(0, stream.num_frames).numpy()
