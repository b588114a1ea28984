"""Distillation of the Whisper lip prior into the audio encoder of a generator.

The audio encoder and the transformer learn the lip motion that the prior predicts for many voices,
and the real lip motion of corpora. The rest of the generator, and with it the rendering, is frozen.

Paper: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    arXiv:1503.02531.

Shape suffixes: B batch, W audio windows, T video frames, M mel frames, P = 40 coordinates of the
lip points, K components of the speech features, D width of the tokens.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from talkinghead.data.augmentation.batch_augmentation import BatchAugmentation, RandomStreams
from talkinghead.data.clip_file import ClipFile
from talkinghead.data.data_options import AugmentationOptions
from talkinghead.data.manifest import Manifest
from talkinghead.data.window_sampling import clip_probabilities, make_rng
from talkinghead.errors import CorpusError
from talkinghead.features.audio_features import AudioFeatures, mel_windows
from talkinghead.features.faces.alignment import as_tensor, lip_motion
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.media.audio_decoding import read_audio
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.audio.whisper_prior import Encoder, WhisperLipPrior
from talkinghead.training.whisper_prior_fit import recording_inputs
from talkinghead.types import AVSpec, FloatArray

logger = logging.getLogger(__name__)

_NUM_COMPONENTS = 128
_LOG_EVERY = 100
_VARIANCE_PX = 3.0


@dataclass(frozen=True)
class DistillationOptions:
    """Options of `distil_lip_prior`.

    Attributes:
        num_iterations: Number of optimiser steps.
        batch_size: Sequences per step.
        num_frames: Number of video frames in a sequence.
        lr: Largest learning rate, reached after 5 % of the steps; it then falls with a cosine.
        voice_fraction: Fraction of sequences from the voices, whose lip motion the prior predicts.
        silence_fraction: Fraction of silent sequences, for which the tokens must not change.
        token_weight: Weight of the distance to the old tokens with the target's lip motion, which
            keeps the decoder's other inputs.
        feature_weight: Weight of a prediction of the principal components of the prior's inputs
            from the last hidden layer but one, which speeds up training on few voices.
        seed: Seed of sampling and augmentation.
    """

    num_iterations: int = 4000
    batch_size: int = 8
    num_frames: int = 72
    lr: float = 1.5e-3
    voice_fraction: float = 0.6
    silence_fraction: float = 0.05
    token_weight: float = 0.3
    feature_weight: float = 0.5
    seed: int = 0


@dataclass
class Recording:
    """Speech with lip motion: mel [80, M], motion [T, P], features [T, K] and face tokens [R, D].

    Recordings without a face have no face tokens.
    """

    mel: Tensor
    motion: Tensor
    features: Tensor
    faces: Tensor | None = None


def distil_lip_prior(
    generator: LipSyncGenerator,
    spec: AVSpec,
    recordings: Sequence[Recording],
    weights: FloatArray,
    options: DistillationOptions,
) -> LipSyncGenerator:
    """Return a generator whose audio encoder has learnt the lip motion of recordings.

    Args:
        generator: the generator to start from; it is not changed.
        spec: its AVSpec.
        recordings: see `read_recordings`.
        weights: probability of each recording.
        options: see `DistillationOptions`.
    """
    old = generator.eval().requires_grad_(False)
    student, average = copy.deepcopy(old), copy.deepcopy(old)
    trained = [*student.audio_encoder.parameters(), *student.transformer.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        components = nn.Linear(student.lip_head.in_features, recordings[0].features.shape[1])
    hidden: dict[str, Tensor] = {}
    layer = student.transformer.layers[-2 if len(student.transformer.layers) > 1 else -1]
    hook = layer.register_forward_hook(lambda *call: hidden.__setitem__("x", call[2]))
    optimizer = torch.optim.AdamW([*trained, *components.parameters()], options.lr, (0.9, 0.98))
    sampler = _Sampler(old, spec, recordings, weights, options)
    for step in range(options.num_iterations):
        batch = sampler.batch(step)
        progress = step / options.num_iterations
        for group in optimizer.param_groups:
            group["lr"] = (
                options.lr * min(1.0, 20 * progress) * (1 + math.cos(math.pi * progress)) / 2
            )
        with torch.autocast("cpu", torch.bfloat16):
            tokens_BWD = encode(student, batch.augmented, batch.faces)
        predicted = components(hidden["x"][:, 1:].float())
        losses = _losses(student, tokens_BWD.float(), predicted, batch, options)
        optimizer.zero_grad()
        cast(Tensor, sum(losses.values())).backward()
        nn.utils.clip_grad_norm_(trained, 2.0)
        optimizer.step()
        _average(average, student, min(0.999, (step + 1) / (step + 11)))
        if step % _LOG_EVERY == 0:
            text = ", ".join(f"{name} {float(loss.detach()):.3f}" for name, loss in losses.items())
            logger.info("%d of %d: %s", step, options.num_iterations, text)
    hook.remove()
    return average


def encode(generator: LipSyncGenerator, windows: Tensor, faces: Tensor) -> Tensor:
    """Return the tokens [B, W, D] of audio windows, given face tokens [B, D]."""
    return generator.encode_audio(windows, cast(Any, SimpleNamespace(token=faces)))


@dataclass
class _Batch:
    """Windows with and without augmentation, face tokens and targets; NaN where unknown."""

    windows: Tensor
    augmented: Tensor
    faces: Tensor
    motion: Tensor
    features: Tensor
    tokens: Tensor


class _Sampler:
    """Deterministic sampling of batches."""

    def __init__(
        self,
        old: LipSyncGenerator,
        spec: AVSpec,
        recordings: Sequence[Recording],
        weights: FloatArray,
        options: DistillationOptions,
    ) -> None:
        self.old, self.spec, self.options = old, spec, options
        self.recordings, self.weights = recordings, weights
        self.faces = torch.cat([r.faces for r in recordings if r.faces is not None])
        self.past, self.ahead = old.context_frames, old.lookahead_frames
        augmentation = AugmentationOptions(mel_noise=0.4)
        self.augmentation = BatchAugmentation(spec, augmentation, options.seed)

    def batch(self, number: int) -> _Batch:
        rng = make_rng(self.options.seed, 0, number)
        size = self.options.batch_size
        mels, starts, motions, features, faces, silent = zip(
            *(self._sample(rng) for _ in range(size)), strict=True
        )
        mel = torch.stack(mels)
        streams = RandomStreams(self.options.seed, range(number * size, (number + 1) * size))
        windows, augmented = (
            torch.stack([self._windows(m, start) for m, start in zip(each, starts, strict=True)])
            for each in (mel, self.augmentation.audio(mel.clone(), streams))
        )
        motion, face = torch.stack(motions), torch.stack(faces)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            tokens = encode(self.old, windows, face).float()
        if any(silent):
            motion[list(silent)] = self.old.decode_lip_motion(tokens[list(silent)]).flatten(2)
        tokens = self.old.set_lip_motion(tokens, motion.unflatten(-1, (20, 2)))
        return _Batch(windows, augmented, face, motion, torch.stack(features), tokens)

    def _sample(self, rng: np.random.Generator) -> tuple[Tensor, int, Tensor, Tensor, Tensor, bool]:
        """Return a window: mel, start frame in the mel, motion, features, face token, is silent."""
        length = self.past + self.options.num_frames + self.ahead
        margin = math.ceil(self.spec.mel_window / self._mels_per_frame) + 1
        num_mels = math.ceil((length + 2 * margin) * self._mels_per_frame)
        recording = self.recordings[rng.choice(len(self.recordings), p=self.weights)]
        silent = bool(rng.random() < self.options.silence_fraction)
        num_frames = len(recording.motion)
        start = int(rng.integers(0, max(1, num_frames - self.options.num_frames + 1))) - self.past
        # Mel frames and video frames start together every `period` video frames.
        period = self._mels_per_frame.denominator
        first = (start - margin) // period * period
        mel = torch.full((self.spec.num_mels, num_mels), MEL_SILENCE)
        motion = torch.full((length, recording.motion.shape[1]), torch.nan)
        features = torch.full((length, recording.features.shape[1]), torch.nan)
        if not silent:
            _copy_overlap(recording.mel.T, int(first * self._mels_per_frame), mel.T)
            _copy_overlap(recording.motion, start, motion)
            _copy_overlap(recording.features, start, features)
        faces = self.faces if recording.faces is None else recording.faces
        face = faces[rng.integers(len(faces))]
        return mel, start - first, motion, features, face, silent

    @property
    def _mels_per_frame(self) -> Any:
        return self.spec.mels_per_second / self.spec.fps

    def _windows(self, mel: Tensor, start: int) -> Tensor:
        frames = range(start, start + self.past + self.options.num_frames + self.ahead)
        return mel_windows(mel, frames, self.spec.fps, self.spec)


def _copy_overlap(source: Tensor, start: int, target: Tensor) -> None:
    """Copy rows `start` to `start + len(target)` of the source; skip rows outside the source."""
    first, stop = max(start, 0), min(start + len(target), len(source))
    if first < stop:
        target[first - start : stop - start] = source[first:stop]


def _losses(
    student: LipSyncGenerator,
    tokens: Tensor,
    predicted: Tensor,
    batch: _Batch,
    options: DistillationOptions,
) -> dict[str, Tensor]:
    """Return the weighted losses over the frames after the context."""
    past = student.context_frames
    frames = slice(past, past + options.num_frames)
    error = (student.decode_lip_motion(tokens).flatten(2) - batch.motion)[:, frames]
    error = error[torch.isfinite(error).all(-1)]
    heights = error.unflatten(-1, (20, 2))[..., 1]
    opening = (heights[:, 17:20] - heights[:, 13:16]).mean(1)
    change = (tokens - batch.tokens)[:, frames]
    features = (predicted - batch.features)[:, frames]
    features = features[torch.isfinite(features).all(-1)]
    return {
        "lips": ((error.square() / _VARIANCE_PX + 0.05).sqrt() - math.sqrt(0.05)).mean(),
        "opening": 0.05 * opening.square().mean(),
        "tokens": options.token_weight * change.square().mean() / batch.tokens[:, frames].var(),
        "features": options.feature_weight * features.square().sum() / max(1, features.numel()),
    }


@torch.no_grad()
def _average(average: nn.Module, student: nn.Module, decay: float) -> None:
    for mean, value in zip(average.parameters(), student.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def read_recordings(
    generator: LipSyncGenerator,
    spec: AVSpec,
    corpora: Sequence[Path],
    voices: Path,
    whisper: Encoder,
    lip_prior: WhisperLipPrior,
    voice_fraction: float,
) -> tuple[list[Recording], FloatArray]:
    """Return the recordings of corpora and of a folder of speech, and their probabilities.

    Raises:
        CorpusError: the corpora have no training clips, or the folder has no files.
    """
    videos, speakers = [], []
    for corpus in corpora:
        for clip in track(Manifest.load(corpus).split("train"), f"reading {corpus.name}"):
            videos.append(_read_clip(generator, ClipFile(corpus / clip.path), whisper))
            speakers.append(clip.speaker)
    files = sorted(file for file in voices.rglob("*") if file.is_file())
    if not videos or not files:
        raise CorpusError(
            f"there are {len(videos)} training clips and {len(files)} files in {voices}: give "
            "corpora with clips and a folder of speech"
        )
    audio, extract = [], AudioFeatures(spec)
    for file in track(files, "reading voices"):
        samples = read_audio(file, spec.sample_rate).samples
        num_frames = int(len(samples) * spec.fps / spec.sample_rate)
        inputs = torch.from_numpy(recording_inputs(whisper, samples, num_frames))
        mel, motion = extract(torch.from_numpy(samples)), lip_prior.motion_of(inputs.float())
        audio.append(Recording(mel, motion, inputs))
    recordings = [*videos, *audio]
    _reduce_features(recordings)
    weights = (1 - voice_fraction) * clip_probabilities(speakers)
    return recordings, np.append(weights, np.full(len(audio), voice_fraction / len(audio)))


def _read_clip(generator: LipSyncGenerator, clip: ClipFile, whisper: Encoder) -> Recording:
    samples = clip.tensor("audio").astype(np.float32) / np.float32(32_767)
    inputs = torch.from_numpy(recording_inputs(whisper, samples, len(clip)))
    lips = torch.from_numpy(clip.tensor("lips"))
    known = torch.isfinite(lips).all(2).all(1).nonzero()[:, 0]
    tokens = [torch.empty(0, generator.lip_head.in_features)]
    for index in known[:: max(1, len(known) // 2)].tolist():
        face = as_tensor(clip.faces(index, index + 1))
        with torch.no_grad():
            tokens.append(generator.encode_reference(face, lips[index : index + 1]).token)
    motion = torch.from_numpy(lip_motion(clip.tensor("lips"))).flatten(1)
    return Recording(torch.from_numpy(clip.mel()), motion, inputs, torch.cat(tokens))


def _reduce_features(recordings: Sequence[Recording]) -> None:
    """Replace the features by their principal components, partly whitened, in place."""
    rows = torch.cat([r.features[::25] for r in recordings]).float()
    mean, scale = rows.mean(0), rows.std(0) + 0.05
    rows = (rows - mean) / scale
    rank = min(_NUM_COMPONENTS, *rows.shape)
    basis = torch.svd_lowrank(rows, rank)[2]
    spread = (rows @ basis).std(0) + 1e-3
    basis = basis / (spread * spread.max()).sqrt()
    for recording in recordings:
        recording.features = ((recording.features.float() - mean) / scale) @ basis
