"""A second opinion on how lips move, beside the model's own: the same whole or chunk by chunk.

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
    """Who tells how lips move from a block of speech and what surrounds it, and nothing else.

    So it makes no difference how the speech comes in.

    Attributes:
        past_s, block_s, ahead_s: what is heard before the block, in it and after it.
        sample_rate, fps: of what it hears, and of the lips that it tells.
        share: of its opinion, 0 to 1; the rest is the model's.
    """

    past_s: Fraction
    block_s: Fraction
    ahead_s: Fraction
    sample_rate: int
    fps: Fraction
    share: float

    def hear(self, windows: FloatArray) -> FloatArray:
        """Float32 [N, S] in [-1, 1], S samples of past, block and ahead, to motion [N, T, 20, 2].

        In canonical pixels (see `lip_motion`), for the T frames of each block.
        """


class LipPriorStream:
    """A lip_prior's lips, as speech comes.

    Raises:
        UsageError: the lip_prior hears at another sample rate, or tells at another frame rate.
    """

    def __init__(self, lip_prior: LipPrior, spec: AVSpec) -> None:
        if (lip_prior.sample_rate, lip_prior.fps) != (spec.sample_rate, spec.fps):
            raise UsageError(
                f"the lip_prior hears {lip_prior.sample_rate} Hz and tells lips at {lip_prior.fps} "
                f"frames/s; the model works at {spec.sample_rate} Hz and {spec.fps}: choose "
                "lip_prior=none"
            )
        self._listener = lip_prior
        spans = (lip_prior.past_s, lip_prior.block_s, lip_prior.ahead_s)
        self._past, self._block, self._ahead = (int(span * spec.sample_rate) for span in spans)
        self.block_frames = int(lip_prior.block_s * spec.fps)
        self.reset()

    def reset(self) -> None:
        """Begins a new stream."""
        self._samples = np.zeros(self._past, np.float32)
        self._heard = 0
        self._lips = torch.empty(0, 20, 2)
        self._first = 0  # The grid frame of the first of `_lips`.

    @property
    def num_frames(self) -> int:
        """For how many grid frames lips can be had."""
        return self._first + len(self._lips)

    def samples_for(self, frame: int) -> int:
        """How much speech must be heard before a frame's lips can be had."""
        return (frame // self.block_frames + 1) * self._block + self._ahead

    def push(self, samples: FloatArray) -> None:
        """Takes more speech: float32 [n] in [-1, 1]."""
        self._heard += len(samples)
        self._samples = np.concatenate([self._samples, samples.astype(np.float32)])
        length = self._past + self._block + self._ahead
        while len(self._samples) >= length:
            count = min(_MAX_BLOCKS, (len(self._samples) - length) // self._block + 1)
            windows = np.lib.stride_tricks.sliding_window_view(self._samples, length)
            told = self._listener.hear(windows[: count * self._block : self._block])
            self._lips = torch.cat([self._lips, torch.from_numpy(told).flatten(0, 1)])
            self._samples = self._samples[count * self._block :]

    def finish(self) -> None:
        """Says that the speech has ended; silence is heard after it."""
        blocks = max(1, math.ceil(self._heard / self._block))
        self.push(np.zeros(blocks * self._block + self._ahead - self._heard, np.float32))

    def at(self, first: int, stop: int) -> Tensor:
        """The lips [stop - first, 20, 2] of grid frames; NaN for those that were never heard."""
        lips = torch.full((stop - first, 20, 2), torch.nan)
        known = range(max(first, self._first), min(stop, self.num_frames))
        if known:
            lips[known.start - first : known.stop - first] = self._lips[
                known.start - self._first : known.stop - self._first
            ]
        return lips

    def forget(self, frame: int) -> None:
        """Drops what no frame from `frame` on needs."""
        dropped = min(max(0, frame - self._first), len(self._lips))
        self._lips, self._first = self._lips[dropped:], self._first + dropped


def predict_lip_motion(lip_prior: LipPrior, samples: FloatArray, spec: AVSpec) -> FloatArray:
    """A whole sound's lips: float32 [T, 20, 2], T the blocks' frames, as many as cover it.

    Args:
        lip_prior: who tells.
        samples: float32 [n] in [-1, 1], at the spec's sample rate.
        spec: the model's.
    """
    stream = LipPriorStream(lip_prior, spec)
    stream.push(samples)
    stream.finish()
    return stream.at(0, stream.num_frames).numpy()
