"""Distillation of the Whisper lip prior into a small network.

The network learns the lip motion that the prior predicts for many voices.

Paper: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
    arXiv:1503.02531.

Shape suffixes: B batch, T video frames, P = 40 coordinates of the lip points, K components of the
speech features.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.errors import CheckpointError
from talkinghead.features.faces.mouth_motion import pearson
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.media.atomic_file import atomic_path
from talkinghead.models.lip_motion_network import LipMotionNetwork
from talkinghead.runtime.device import cpu_autocast
from talkinghead.training.distillation.distillation_options import DistillationOptions
from talkinghead.training.distillation.distillation_sampler import (
    Batch,
    DistillationSampler,
    mel_places,
)
from talkinghead.training.distillation.recordings import Recording
from talkinghead.types import AVSpec

logger = logging.getLogger(__name__)

_LOG_EVERY, _SAVE_EVERY = 100, 100
_VARIANCE_PX = 3.0


def distil_lip_prior(
    network: LipMotionNetwork,
    spec: AVSpec,
    recordings: Sequence[Recording],
    options: DistillationOptions,
    state_path: Path | None = None,
) -> LipMotionNetwork:
    """Return a network that is trained on the predicted lip motion of recordings.

    Args:
        network: the network to start from; it is not changed.
        spec: AVSpec of the recordings.
        recordings: see `read_recordings`.
        options: see `DistillationOptions`.
        state_path: file for the state of the training, which a later call continues; None to keep
            no state.

    Raises:
        CheckpointError: the state belongs to another network.
    """
    sampler = DistillationSampler(network, spec, recordings, options)
    training = _Training.start(network, recordings, options)
    if state_path is not None and state_path.is_file():
        training.load(state_path)
        logger.info("continuing after %d of %d steps", training.step, options.num_iterations)
    while (progress := training.progress(options)) < 1:
        started_s = time.monotonic()
        batch = sampler.batch(training.step)
        losses = training.run_step(batch, sampler.places, progress, options)
        training.seconds += time.monotonic() - started_s
        if training.step % _LOG_EVERY == 0:
            text = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
            logger.info("%d of %d: %s", training.step, options.num_iterations, text)
        if state_path is not None and training.step % _SAVE_EVERY == 0:
            training.save(state_path)
    if state_path is not None:
        training.save(state_path)
    return training.average.eval()


def opening_correlation_with_prior(
    network: LipMotionNetwork, spec: AVSpec, recordings: Sequence[Recording]
) -> float:
    """Return the mean r of the network's and the prior's mouth opening over recordings."""
    scores, past = [], network.past_frames
    for recording in recordings:
        places = mel_places(past + len(recording.predicted), spec)
        before = round(float(past * spec.mels_per_second / spec.fps))
        mel = F.pad(recording.mel.float(), (before, network.ahead_mels), value=MEL_SILENCE)
        with torch.no_grad():
            motion = network(mel[None], places)[0]
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

    student: LipMotionNetwork
    average: LipMotionNetwork
    components: nn.Linear
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def start(
        cls,
        network: LipMotionNetwork,
        recordings: Sequence[Recording],
        options: DistillationOptions,
    ) -> _Training:
        student, average = copy.deepcopy(network), copy.deepcopy(network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            components = nn.Linear(network.channels, recordings[0].features.shape[1])
        parameters = [*student.parameters(), *components.parameters()]
        optimizer = torch.optim.AdamW(parameters, options.lr, (0.9, 0.98), weight_decay=0.03)
        return cls(student.train(), average, components, optimizer)

    def progress(self, options: DistillationOptions) -> float:
        """Return the finished fraction of the training."""
        spent = self.seconds / 60 / options.max_minutes if options.max_minutes else 0.0
        return max(self.step / options.num_iterations, spent)

    def run_step(
        self, batch: Batch, places: Tensor, progress: float, options: DistillationOptions
    ) -> dict[str, float]:
        """Change the weights by one step, and return the weighted losses."""
        lr = options.lr * min(1.0, 25 * progress) * (1 + math.cos(math.pi * progress)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.random.fork_rng(devices=[]), cpu_autocast():
            # Dropout must not depend on earlier steps, so that a continued training is equal.
            torch.manual_seed(options.seed * 1_000_003 + self.step)
            hidden = self.student.hidden(batch.mel, places)
            motion, features = self.student.lips(hidden).float(), self.components(hidden).float()
        losses = _losses(motion, features, batch, options)
        self.optimizer.zero_grad()
        cast(Tensor, sum(losses.values())).backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 2.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.9985, self.step / (self.step + 10))
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
    motion: Tensor, features: Tensor, batch: Batch, options: DistillationOptions
) -> dict[str, Tensor]:
    """Return the weighted losses over the frames with a target."""
    known = torch.isfinite(batch.motion).all(-1)
    error, difference = (motion - batch.motion)[known], (features - batch.features)[known]
    return {
        "lips": ((error.square() / _VARIANCE_PX + 0.05).sqrt() - math.sqrt(0.05)).mean(),
        "opening": 0.05 * opening_of(error).square().mean(),
        "features": options.feature_weight * difference.square().mean(),
    }
