"""Lip priors that map features of speech linearly to lip motion.

Shape suffixes: N windows, S samples, F inputs of the map, T video frames.
"""

from __future__ import annotations

import copy
import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Self

import numpy as np
from torch import Tensor

from talkinghead.errors import UsageError
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.predict.audio.lip_priors.speech_weights import SpeechWeights
from talkinghead.types import FloatArray

_MAX_WINDOWS = 16  # Number of windows that are processed at once.


class MappedLipPrior(LipPrior):
    """A lip prior that maps features of speech linearly to lip motion, at 16 kHz and 25 Hz.

    The map can be adapted to a speaker. Subclasses set the spans of `LipPrior` and define the
    features.

    Args:
        weight: float [F, 40], the weight of the map.
        bias: float [40], its bias.
        blend_weight: Weight of the predicted lip motion, 0 to 1; the rest is the weight of the
            generator's own motion.
        speech_only: Predict the motion of silence where there is loud sound without speech, such as
            music and noise.

    Raises:
        UsageError: `blend_weight` is out of range.
    """

    sample_rate, fps = 16_000, Fraction(25)

    def __init__(
        self, weight: Tensor, bias: Tensor, blend_weight: float, speech_only: bool
    ) -> None:
        if not 0 <= blend_weight <= 1:
            raise UsageError(
                f"lip_prior.blend_weight={blend_weight:g}: choose 0 (the generator's motion only) "
                "to 1 (the prior's only)"
            )
        self.blend_weight = blend_weight
        self._weight, self._bias = weight.float(), bias.float()
        spans = self.past_s, self.block_s, self.ahead_s
        self._speech_weights = SpeechWeights(*spans) if speech_only else None
        self._rest: FloatArray | None = None

    @abstractmethod
    def inputs(self, windows: FloatArray) -> Tensor:
        """Return the map's inputs [N, T, F] for the blocks of windows [N, S]."""

    @property
    @abstractmethod
    def source(self) -> str | None:
        """Text that differs for other features; None if they cannot be identified."""

    def predict_motion(self, windows: FloatArray, first_frame: int) -> FloatArray:
        """Return the lip motion of blocks (see `LipPrior.predict_motion`)."""
        return self.with_rest(self.lips_of(self.inputs(windows)), self.speech_weights(windows))

    def with_rest(self, motion: FloatArray, weights: FloatArray) -> FloatArray:
        """Blend motion [..., T, 20, 2] with that of silence; `weights` [..., T] are of speech."""
        if weights.min(initial=1) == 1:
            return motion
        if self._rest is None:
            length = int((self.past_s + self.block_s + self.ahead_s) * self.sample_rate)
            silence = np.zeros((1, length), np.float32)
            self._rest = self.lips_of(self.inputs(silence)).mean((0, 1))
        weights = weights[..., None, None]
        return weights * motion + (1 - weights) * self._rest

    def speech_weights(self, windows: FloatArray) -> FloatArray:
        """Return the weights of the frames of blocks (see `SpeechWeights`)."""
        if self._speech_weights is None:
            return np.ones((len(windows), int(self.block_s * self.fps)), np.float32)
        return self._speech_weights.of_blocks(windows)

    def lips_of(self, inputs: Tensor) -> FloatArray:
        """Return the lip motion [..., 20, 2] of the map's inputs [..., F]."""
        return np.asarray(self.motion_of(inputs).unflatten(-1, (20, 2)), np.float32)

    def motion_of(self, inputs: Tensor) -> Tensor:
        """Return the lip motion [..., 40] of the map's inputs [..., F]."""
        return inputs @ self._weight + self._bias

    def recording_inputs(self, samples: FloatArray, num_frames: int) -> FloatArray:
        """Return the map's inputs for a recording (see `inputs_of_recording`)."""
        inputs = inputs_of_recording(self.inputs, type(self), samples, num_frames)
        return inputs[:, : len(self._weight)]

    @property
    def map_tensors(self) -> tuple[Tensor, Tensor]:
        """Weight [F, 40] and bias [40] of the map."""
        return self._weight, self._bias

    @property
    def identity(self) -> str | None:
        """Text that differs for priors with other predictions; None if `source` is None."""
        if self.source is None:
            return None
        digest = hashlib.sha256(self._weight.numpy().tobytes() + self._bias.numpy().tobytes())
        weights = f"{self.blend_weight} {self._speech_weights is not None}"
        return f"{self.source} {digest.hexdigest()} {weights}"

    def with_map(self, weight: Tensor, bias: Tensor) -> Self:
        """Return a lip prior with another map that shares the rest."""
        other = copy.copy(self)
        other._weight, other._bias = weight.float(), bias.float()
        other._rest = None
        return other


def inputs_of_recording(
    inputs: Callable[[FloatArray], Tensor],
    spans: type[MappedLipPrior],
    samples: FloatArray,
    num_frames: int,
) -> FloatArray:
    """Return the inputs of each frame of a recording [num_samples], float16 [T, F].

    Args:
        inputs: function as `MappedLipPrior.inputs`.
        spans: class with the spans of the windows.
        samples: float32 [num_samples] in [-1, 1].
        num_frames: number of video frames T.
    """
    past, block, ahead = (
        int(span_s * spans.sample_rate) for span_s in (spans.past_s, spans.block_s, spans.ahead_s)
    )
    num_blocks = math.ceil(num_frames / (spans.block_s * spans.fps))
    padded = np.zeros(past + num_blocks * block + ahead, np.float32)
    samples = samples[: len(padded) - past]
    padded[past : past + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, past + block + ahead)[::block]
    pieces = [
        inputs(windows[i : i + _MAX_WINDOWS]).flatten(0, 1).half().numpy()
        for i in range(0, num_blocks, _MAX_WINDOWS)
    ]
    return np.concatenate(pieces)[:num_frames]
