"""Distillation of the Whisper lip prior into the audio encoder of a generator.

The audio encoder and the transformer learn the lip motion that the prior predicts for many voices,
and the real lip motion of corpora. The rest of the generator, and with it the rendering, is frozen.

Paper: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    arXiv:1503.02531.

Shape suffixes: B batch, W audio windows, T video frames, P = 40 coordinates of the lip points,
K components of the speech features, D width of the tokens.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from talkinghead.errors import CheckpointError
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.mouth_motion import pearson
from talkinghead.media.atomic_file import atomic_path
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.runtime.device import cpu_autocast
from talkinghead.training.distillation.distillation_sampler import (
    Batch,
    DistillationOptions,
    DistillationSampler,
    encode,
)
from talkinghead.training.distillation.recordings import Recording
from talkinghead.types import AVSpec

logger = logging.getLogger(__name__)

_LOG_EVERY, _SAVE_EVERY = 100, 100
_VARIANCE_PX = 3.0


def distil_lip_prior(
    generator: LipSyncGenerator,
    spec: AVSpec,
    recordings: Sequence[Recording],
    options: DistillationOptions,
    state_path: Path | None = None,
) -> LipSyncGenerator:
    """Return a generator whose audio encoder is trained on the lip motion of recordings.

    The `generator` to start from is not changed. If `state_path` is given, the state of the
    training is kept in this file, and a later call continues it.

    Raises:
        CheckpointError: the state belongs to another generator.
    """
    old = generator.eval().requires_grad_(False)
    sampler = DistillationSampler(old, spec, recordings, options)
    training = _Training.start(old, recordings[0].features.shape[1], options)
    if state_path is not None and state_path.is_file():
        training.load(state_path)
        logger.info("continuing after %d of %d steps", training.step, options.num_iterations)
    while (progress := training.progress(options)) < 1:
        started_s = time.monotonic()
        losses = training.run_step(sampler.batch(training.step), progress, options)
        training.seconds += time.monotonic() - started_s
        if training.step % _LOG_EVERY == 0:
            text = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            logger.info("%d of %d: %s", training.step, options.num_iterations, text)
        if state_path is not None and training.step % _SAVE_EVERY == 0:
            training.save(state_path)
    if state_path is not None:
        training.save(state_path)
    training.hook.remove()
    return training.average


def opening_correlation_with_prior(
    generator: LipSyncGenerator, spec: AVSpec, recordings: Sequence[Recording]
) -> float:
    """Return the mean r of the generator's and the prior's mouth opening over recordings."""
    past, scores = generator.context_frames, []
    for recording in recordings:
        num_frames = len(recording.predicted)
        frames = range(-past, num_frames + generator.lookahead_frames)
        windows = mel_windows(recording.mel, frames, spec.fps, spec)[None]
        with torch.no_grad():
            tokens = encode(generator, windows, torch.zeros(1, generator.lip_head.in_features))
            motion = generator.decode_lip_motion(tokens)[0, past : past + num_frames].flatten(1)
        pair = opening_of(motion).numpy(), opening_of(recording.predicted).numpy()
        scores.append(pearson(*pair))
    return float(np.nanmean(scores)) if scores else math.nan


def opening_of(motion: Tensor) -> Tensor:
    """Return the opening [...] of lip motion [..., P] in pixels."""
    heights = motion.unflatten(-1, (20, 2))[..., 1]
    return (heights[..., 17:20] - heights[..., 13:16]).mean(-1)


@dataclass
class _Training:
    """Networks and optimiser; `step` steps were made in `seconds`."""

    student: LipSyncGenerator
    average: LipSyncGenerator
    components: nn.Linear
    optimizer: torch.optim.Optimizer
    trained: list[nn.Parameter]
    hook: torch.utils.hooks.RemovableHandle
    hidden: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def start(
        cls, old: LipSyncGenerator, num_components: int, options: DistillationOptions
    ) -> _Training:
        student, average = copy.deepcopy(old), copy.deepcopy(old)
        trained = [*student.audio_encoder.parameters(), *student.transformer.parameters()]
        for parameter in trained:
            parameter.requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            components = nn.Linear(student.lip_head.in_features, num_components)
        parameters = [*trained, *components.parameters()]
        optimizer = torch.optim.AdamW(parameters, options.lr, (0.9, 0.98), weight_decay=0.02)
        hidden: dict[str, Tensor] = {}
        layer = student.transformer.layers[-2 if len(student.transformer.layers) > 1 else -1]
        hook = layer.register_forward_hook(lambda *call: hidden.__setitem__("x", call[2]))
        return cls(student, average, components, optimizer, trained, hook, hidden)

    def progress(self, options: DistillationOptions) -> float:
        """Return the finished fraction of the training."""
        spent = self.seconds / 60 / options.max_minutes if options.max_minutes else 0.0
        return max(self.step / options.num_iterations, spent)

    def run_step(
        self, batch: Batch, progress: float, options: DistillationOptions
    ) -> dict[str, float]:
        """Change the weights by one step, and return the weighted losses."""
        lr = options.lr * min(1.0, 20 * progress) * (1 + math.cos(math.pi * progress)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with cpu_autocast():
            tokens = encode(self.student, batch.augmented, batch.faces)
        predicted = self.components(self.hidden["x"][:, 1:].float())
        losses = _losses(self.student, tokens.float(), predicted, batch, options)
        self.optimizer.zero_grad()
        cast(Tensor, sum(losses.values())).backward()
        nn.utils.clip_grad_norm_(self.trained, 2.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.999, self.step / (self.step + 10))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.student.parameters(), strict=True)
            for mean, value in pairs:
                mean.lerp_(value, 1 - decay)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def save(self, path: Path) -> None:
        names = ("student", "average", "components", "optimizer")
        state = {name: getattr(self, name).state_dict() for name in names}
        with atomic_path(path) as temporary:
            torch.save({**state, "step": self.step, "seconds": self.seconds}, temporary)

    def load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name in ("student", "average", "components", "optimizer"):
                getattr(self, name).load_state_dict(state[name])
            self.step, self.seconds = state["step"], state["seconds"]
        except (RuntimeError, KeyError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{path} is not a state of this distillation ({reason}): delete it to start anew"
            ) from error


def _losses(
    student: LipSyncGenerator,
    tokens: Tensor,
    predicted: Tensor,
    batch: Batch,
    options: DistillationOptions,
) -> dict[str, Tensor]:
    """Return the weighted losses over the frames after the context."""
    past = student.context_frames
    frames = slice(past, past + options.num_frames)
    error = (student.decode_lip_motion(tokens).flatten(2) - batch.motion)[:, frames]
    error = error[torch.isfinite(error).all(-1)]
    change = (tokens - batch.tokens)[:, frames]
    features = (predicted - batch.features)[:, frames]
    features = features[torch.isfinite(features).all(-1)]
    return {
        "lips": ((error.square() / _VARIANCE_PX + 0.05).sqrt() - math.sqrt(0.05)).mean(),
        "opening": 0.05 * opening_of(error).square().mean(),
        "tokens": options.token_weight * change.square().mean() / batch.tokens[:, frames].var(),
        "features": options.feature_weight * features.square().sum() / max(1, features.numel()),
    }
