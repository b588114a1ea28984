"""Deterministic sampling of batches for the distillation of a lip prior.

Shape suffixes: B batch, W audio windows, C mel bins, L mel frames, P = 40 coordinates of the lip
points, K components of the speech features, D width of the tokens.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkinghead.data.augmentation.batch_augmentation import BatchAugmentation, RandomStreams
from talkinghead.data.data_options import AugmentationOptions
from talkinghead.data.window_sampling import clip_probabilities, make_rng
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.runtime.device import cpu_autocast
from talkinghead.training.distillation.recordings import Recording, stretch_recording
from talkinghead.types import AVSpec, FloatArray

_AUGMENTATION = AugmentationOptions(tilt_db=12, vocal_tract=0.18, mel_noise=0.4)
_EQUALISER_BANDS, _EQUALISER_SD = 7, 0.2
# Maximum number of frames by which a sequence extends beyond the start or end of its recording.
_MARGIN_FRAMES = 3


@dataclass(frozen=True)
class DistillationOptions:
    """Options of `distil_lip_prior`.

    Attributes:
        num_iterations: Number of optimiser steps.
        max_minutes: Training time after which training ends, interruptions left out; None for no
            limit. The learning rate falls with the time if the time is the tighter limit.
        batch_size: Sequences per step.
        num_frames: Video frames of a sequence.
        lr: Largest learning rate, reached after 5 % of the steps; it then falls with a cosine.
        voice_fraction: Fraction of sequences from the voices, whose lip motion the prior predicts.
        silence_fraction: Fraction of sequences of silence or noise, for which the tokens must be
            those of silence before the distillation. The corpora have the remaining fraction.
        corpus_weights: Weight of each corpus; empty for equal weights.
        temperature: Weight of a speaker within a corpus, as a power of its number of clips.
        predicted_fraction: Fraction of the sequences of the corpora after the first whose target is
            the prior's lip motion instead of the detected one.
        own_face_fraction: Fraction of the sequences of a corpus with a face of their own speaker.
            The others, and voices, get other faces, half of them mixed, with noise.
        token_weight: Weight of the distance to the old tokens with the target's lip motion, which
            keeps the decoder's other inputs.
        feature_weight: Weight of a prediction of the principal components of the prior's inputs
            from the last hidden layer but one, which speeds up training on few voices.
        stretch: Half of the sequences are played faster or slower by at most this fraction.
        held_out_every: One in so many voices is kept for the measurement of the result.
        seed: Seed of sampling and augmentation.
    """

    num_iterations: int = 4000
    max_minutes: float | None = None
    batch_size: int = 8
    num_frames: int = 72
    lr: float = 1.5e-3
    voice_fraction: float = 0.6
    silence_fraction: float = 0.05
    corpus_weights: Sequence[float] = ()
    temperature: float = 0.3
    predicted_fraction: float = 0.5
    own_face_fraction: float = 0.7
    token_weight: float = 0.3
    feature_weight: float = 0.5
    stretch: float = 0.12
    held_out_every: int = 15
    seed: int = 0


def encode(generator: LipSyncGenerator, windows: Tensor, faces: Tensor) -> Tensor:
    """Return the tokens [B, W, D] of audio windows, given face tokens [B, D]."""
    return generator.encode_audio(windows, cast(Any, SimpleNamespace(token=faces)))


@dataclass
class Batch:
    """A batch of sequences.

    Attributes:
        augmented: windows of the augmented mel, float [B, W, 80, mel_window].
        faces: face tokens, float [B, D].
        motion: target of the lip motion, float [B, W, P], NaN where unknown.
        features: target of the components, float [B, W, K], NaN where unknown.
        tokens: the old tokens with the target's lip motion, float [B, W, D].
    """

    augmented: Tensor
    faces: Tensor
    motion: Tensor
    features: Tensor
    tokens: Tensor


@dataclass
class _Sequence:
    """Mel [80, L], the video frame at which it starts, targets [W, ...] and a face token [D]."""

    mel: Tensor
    offset: int
    motion: Tensor
    features: Tensor
    face: Tensor
    is_silent: bool


class DistillationSampler:
    """A sampler of batches that depend only on the seed and the number of the batch.

    `old` is the generator before the distillation.

    Raises:
        CorpusError: no recording has a face.
    """

    def __init__(
        self,
        old: LipSyncGenerator,
        spec: AVSpec,
        recordings: Sequence[Recording],
        options: DistillationOptions,
    ) -> None:
        self.old, self.spec, self.options, self.recordings = old, spec, options, recordings
        self.probabilities = recording_probabilities(recordings, options)
        own: defaultdict[tuple[int | None, str], list[Tensor]] = defaultdict(list)
        for recording in recordings:
            if recording.faces is not None and len(recording.faces):
                own[recording.corpus, recording.speaker].append(recording.faces)
        if not own:
            raise CorpusError("no clip of the corpora has known lips: prepare other videos")
        self._own_faces = {key: torch.cat(tokens) for key, tokens in own.items()}
        self._faces = torch.cat(list(self._own_faces.values()))
        self._face_sd = self._faces.std(0, correction=0)
        self._past, self._ahead = old.context_frames, old.lookahead_frames
        self._length = self._past + options.num_frames + self._ahead
        self._mels_per_frame = Fraction(spec.mels_per_second) / spec.fps
        self._augmentation = BatchAugmentation(spec, _AUGMENTATION, options.seed)

    def batch(self, number: int) -> Batch:
        """Return the batch with a given number."""
        rng, size = make_rng(self.options.seed, 0, number), self.options.batch_size
        drawn = [self._draw(rng) for _ in range(size)]
        streams = RandomStreams(self.options.seed, range(number * size, (number + 1) * size))
        mel = torch.stack([one.mel for one in drawn])
        changed = _equalise(self._augmentation.audio(mel.clone(), streams), streams)
        silent = torch.tensor([one.is_silent for one in drawn])
        mel[silent] = MEL_SILENCE
        clean, augmented = (
            torch.stack([self._windows(*pair) for pair in zip(m, drawn, strict=True)])
            for m in (mel, changed)
        )
        motion, faces, features = (
            torch.stack([getattr(one, name) for one in drawn])
            for name in ("motion", "face", "features")
        )
        with torch.no_grad():
            with cpu_autocast():
                tokens = encode(self.old, clean, faces)
            tokens = tokens.float()
            motion[silent] = self.old.decode_lip_motion(tokens[silent]).flatten(2)
            tokens = self.old.set_lip_motion(tokens, motion.unflatten(-1, (20, 2)))
        return Batch(augmented, faces, motion, features, tokens)

    def _draw(self, rng: np.random.Generator) -> _Sequence:
        recording = self.recordings[rng.choice(len(self.recordings), p=self.probabilities)]
        is_silent = bool(rng.random() < self.options.silence_fraction)
        face = self._draw_face(rng, None if is_silent else recording)
        uses_prior = recording.detected is None or (
            recording.corpus != 0 and rng.random() < self.options.predicted_fraction
        )
        if rng.random() < 0.5:
            limit = self.options.stretch
            recording = stretch_recording(recording, math.exp(rng.uniform(-limit, limit)))
        target = recording.predicted if uses_prior else recording.detected
        assert target is not None
        latest = max(0, len(target) - self.options.num_frames) + _MARGIN_FRAMES
        start = int(rng.integers(-_MARGIN_FRAMES, latest + 1)) - self._past
        # Mel frames and video frames start together every `period` video frames.
        period = self._mels_per_frame.denominator
        first = (start - self._margin) // period * period
        num_mels = math.ceil((self._length + 2 * self._margin + period) * self._mels_per_frame)
        mel = torch.full((self.spec.num_mels, num_mels), MEL_SILENCE)
        motion = torch.full((self._length, target.shape[1]), torch.nan)
        features = torch.full((self._length, recording.features.shape[1]), torch.nan)
        if is_silent:
            mel = _noise(mel, rng)
        else:
            _copy_overlap(recording.mel.T, int(first * self._mels_per_frame), mel.T)
            _copy_overlap(target, start, motion)
            _copy_overlap(recording.features, start, features)
        return _Sequence(mel, start - first, motion, features, face, is_silent)

    @property
    def _margin(self) -> int:
        return math.ceil(self.spec.mel_window / self._mels_per_frame) + 1

    def _draw_face(self, rng: np.random.Generator, recording: Recording | None) -> Tensor:
        """Return a face token of the recording's speaker, or another one with changes."""
        key = (None, "") if recording is None else (recording.corpus, recording.speaker)
        own = self._own_faces.get(key)
        if own is not None and rng.random() < self.options.own_face_fraction:
            return own[rng.integers(len(own))]
        face, other = (self._faces[rng.integers(len(self._faces))] for _ in range(2))
        if rng.random() < 0.5:
            face = torch.lerp(face, other, float(rng.random()))
        noise = torch.from_numpy(rng.normal(size=len(face))).float()
        return face + 0.3 * self._face_sd * noise

    def _windows(self, mel: Tensor, sequence: _Sequence) -> Tensor:
        frames = range(sequence.offset, sequence.offset + self._length)
        return mel_windows(mel, frames, self.spec.fps, self.spec)


def _noise(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the mel of silence, in most cases with weak noise."""
    if rng.random() < 0.3:
        return mel
    grain = torch.from_numpy(rng.normal(size=tuple(mel.shape))).float()
    return (mel + float(rng.uniform(0, 1.8)) + 0.15 * grain).clamp(MEL_SILENCE, -MEL_SILENCE)


def _equalise(mel_BCL: Tensor, streams: RandomStreams) -> Tensor:
    """Return mels, half of which are changed by a random, smooth frequency response."""
    chosen = streams.bernoulli(0.5)[:, None, None]
    bands = streams.normal(1, _EQUALISER_BANDS) * _EQUALISER_SD
    curve = F.interpolate(bands, size=mel_BCL.shape[1], mode="linear", align_corners=True)
    changed = (mel_BCL + curve.transpose(1, 2)).clamp(MEL_SILENCE, -MEL_SILENCE)
    return torch.where(chosen & (mel_BCL > MEL_SILENCE), changed, mel_BCL)


def _copy_overlap(source: Tensor, start: int, target: Tensor) -> None:
    """Fill the target with the source's rows from `start` on, where the source has these rows."""
    first, stop = max(start, 0), min(start + len(target), len(source))
    if first < stop:
        target[first - start : stop - start] = source[first:stop]


def recording_probabilities(
    recordings: Sequence[Recording], options: DistillationOptions
) -> FloatArray:
    """Return the probability of each recording.

    Raises:
        UsageError: the number of corpus weights differs from that of the corpora.
    """
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index, recording in enumerate(recordings):
        groups[-1 if recording.corpus is None else recording.corpus].append(index)
    num_corpora = len(groups) - (-1 in groups)
    weights = list(options.corpus_weights) or [1.0] * num_corpora
    if len(weights) != num_corpora:
        raise UsageError(f"there are {len(weights)} corpus weights for {num_corpora} corpora")
    voices = options.voice_fraction / (1 - options.silence_fraction)
    shares = {n: (1 - voices) * weight / sum(weights) for n, weight in enumerate(weights)}
    probabilities = np.zeros(len(recordings))
    for group, members in groups.items():
        if group == -1:
            probabilities[members] = voices / len(members)
        else:
            speakers = [recordings[index].speaker for index in members]
            own = clip_probabilities(speakers, temperature=options.temperature)
            probabilities[members] = shares[group] * own
    return np.asarray(probabilities / probabilities.sum())
