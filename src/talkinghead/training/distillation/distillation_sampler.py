"""Deterministic sampling of batches for the distillation of a lip prior.

Shape suffixes: B batch, C mel bins, L mel frames, T video frames, P = 40 coordinates of the lip
points, K components of the speech features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkinghead.data.augmentation.batch_augmentation import BatchAugmentation, RandomStreams
from talkinghead.data.data_options import AugmentationOptions
from talkinghead.data.window_sampling import make_rng
from talkinghead.features.mel import MEL_PER_DB, MEL_SILENCE
from talkinghead.models.lip_motion_network import LipMotionNetwork
from talkinghead.training.distillation.distillation_options import DistillationOptions
from talkinghead.training.distillation.recordings import (
    Recording,
    recording_probabilities,
    stretch_recording,
)
from talkinghead.types import AVSpec

_AUGMENTATION = AugmentationOptions(tilt_db=12, vocal_tract=0.18, mel_noise=0.5)
_EQUALISER_BANDS, _EQUALISER_SD = 7, 0.25
# Reverberation: the decay per mel frame, and the level of the decaying sound.
_DECAY, _WETNESS, _ECHO_MELS = (0.6, 0.9), (0.1, 0.5), 24
# Greatest width of a masked span of mel bins and of mel frames.
_MASKED_BINS, _MASKED_MELS = 10, 8


@dataclass
class Batch:
    """A batch of sequences.

    Attributes:
        mel: augmented log-mel, float [B, 80, L].
        motion: target of the lip motion, float [B, T, P], NaN where unknown.
        features: target of the components, float [B, T, K], NaN where unknown.
    """

    mel: Tensor
    motion: Tensor
    features: Tensor


class DistillationSampler:
    """A sampler of batches that depend only on the seed and the number of the batch.

    Args:
        network: the network to train.
        spec: AVSpec of the mel.
        recordings: the recordings to draw from.
        options: fractions, sizes and the seed.

    Attributes:
        places: positions [past_frames + T] of the video frames of every sequence, in mel frames.
    """

    def __init__(
        self,
        network: LipMotionNetwork,
        spec: AVSpec,
        recordings: Sequence[Recording],
        options: DistillationOptions,
    ) -> None:
        self.spec, self.options, self.recordings = spec, options, recordings
        self.probabilities = recording_probabilities(recordings, options)
        self._past = network.past_frames
        self._mels_per_frame = Fraction(spec.mels_per_second) / spec.fps
        self.places = mel_places(self._past + options.num_frames, spec)
        self._num_mels = int(self.places[-1].round()) + network.ahead_mels + 1
        self._augmentation = BatchAugmentation(spec, _AUGMENTATION, options.seed)

    def batch(self, number: int) -> Batch:
        """Return the batch with a given number."""
        rng, size = make_rng(self.options.seed, 0, number), self.options.batch_size
        drawn = [self._draw(rng) for _ in range(size)]
        mel, motion, features = (torch.stack(part) for part in zip(*drawn, strict=True))
        streams = RandomStreams(self.options.seed, range(number * size, (number + 1) * size))
        mel = _equalise(self._augmentation.audio(mel, streams), streams)
        mel = _mask(_reverberate(mel, streams), streams)
        return Batch(mel, motion, features)

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mel [80, L] of a sequence, and its targets [T, P] and [T, K]."""
        recording = self.recordings[rng.choice(len(self.recordings), p=self.probabilities)]
        if rng.random() < 0.5:
            limit = self.options.stretch
            recording = stretch_recording(recording, math.exp(rng.uniform(-limit, limit)))
        num_frames = self.options.num_frames
        latest = max(0, len(recording.predicted) - num_frames)
        # Mel frames and video frames start together every `period` video frames.
        period = self._mels_per_frame.denominator
        start = int(rng.integers(-self._past, latest + 1)) // period * period
        mel = torch.full((self._num_mels, self.spec.num_mels), MEL_SILENCE)
        motion = torch.full((num_frames, recording.predicted.shape[1]), torch.nan)
        features = torch.full((num_frames, recording.features.shape[1]), torch.nan)
        _copy_overlap(recording.mel.T, int(start * self._mels_per_frame), mel)
        _copy_overlap(recording.predicted, start + self._past, motion)
        _copy_overlap(recording.features, start + self._past, features)
        return mel.T, motion, features


def mel_places(num_frames: int, spec: AVSpec) -> Tensor:
    """Return the positions [num_frames] of the middles of video frames, in mel frames."""
    return (torch.arange(num_frames) + 0.5) * float(spec.mels_per_second / spec.fps)


def _equalise(mel_BCL: Tensor, streams: RandomStreams) -> Tensor:
    """Return mels, most of which are changed by a random, smooth frequency response."""
    chosen = streams.bernoulli(0.7)[:, None, None]
    bands = streams.normal(1, _EQUALISER_BANDS) * _EQUALISER_SD
    curve = F.interpolate(bands, size=mel_BCL.shape[1], mode="linear", align_corners=True)
    changed = (mel_BCL + curve.transpose(1, 2)).clamp(MEL_SILENCE, -MEL_SILENCE)
    return torch.where(chosen & (mel_BCL > MEL_SILENCE), changed, mel_BCL)


def _reverberate(mel_BCL: Tensor, streams: RandomStreams) -> Tensor:
    """Return mels, some of which have the power of earlier frames added, as in a room."""
    chosen, decay = streams.bernoulli(0.3), streams.uniform(*_DECAY)
    kernel = decay[:, None] ** torch.arange(_ECHO_MELS)
    kernel[:, 1:] *= streams.uniform(*_WETNESS)[:, None]
    nepers = math.log(10.0) / 10.0 / MEL_PER_DB
    power = F.pad((mel_BCL * nepers).exp(), (_ECHO_MELS - 1, 0)).transpose(0, 1)
    echo = F.conv1d(power, kernel.flip(1)[:, None], groups=len(kernel)).transpose(0, 1)
    changed = (echo.log() / nepers).clamp(MEL_SILENCE, -MEL_SILENCE)
    return torch.where(chosen[:, None, None], changed, mel_BCL)


def _mask(mel_BCL: Tensor, streams: RandomStreams) -> Tensor:
    """Return mels with up to two spans of bins and three spans of frames replaced by means.

    Paper: Park et al., "SpecAugment", 2019, arXiv:1904.08779.
    """
    for count, dim, width, probability in ((2, 1, _MASKED_BINS, 0.4), (3, 2, _MASKED_MELS, 0.4)):
        size = mel_BCL.shape[dim]
        index = torch.arange(size)
        mean = mel_BCL.mean((1, 2) if dim == 1 else 1, keepdim=True)
        for _ in range(count):
            chosen, length = streams.bernoulli(probability), streams.uniform(1, width)
            start = streams.uniform(0, 1) * (size - length)
            inside = (index >= start[:, None]) & (index < (start + length)[:, None])
            inside = (inside & chosen[:, None]).unsqueeze(2 if dim == 1 else 1)
            mel_BCL = torch.where(inside, mean, mel_BCL)
    return mel_BCL


def _copy_overlap(source: Tensor, start: int, target: Tensor) -> None:
    """Fill the target with the source's rows from `start` on, where the source has these rows."""
    first, stop = max(start, 0), min(start + len(target), len(source))
    if first < stop:
        target[first - start : stop - start] = source[first:stop]
