"""Loss terms of the generator and their weights as functions of the training iteration.

Shape suffixes: B clips, T frames, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.errors import UsageError
from talkinghead.losses.adversarial_loss import AdversarialKind, AdversarialLoss, feature_matching
from talkinghead.losses.perceptual_loss import PerceptualLoss
from talkinghead.losses.reconstruction_loss import ReconstructionLoss
from talkinghead.models.checkpoint import load_lip_regressor
from talkinghead.models.encoders import FaceEncoder
from talkinghead.models.lipsync.decoder import GeneratorOutput
from talkinghead.models.lipsync.mouth_painting import lip_mask_prior
from talkinghead.value_rules import NonNegativeFloat

TERMS = (
    *("l1", "gradient", "perceptual", "sync", "landmark", "identity", "adversarial"),
    *("feature_matching", "rgb", "warped", "lips", "pseudo_label", "flow", "mask"),
)


@dataclass(frozen=True)
class LinearSchedule:
    """Weight that changes linearly from `start` to `end` between two iterations."""

    start: float
    end: float
    start_iteration: int
    end_iteration: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_iteration <= self.end_iteration:
            raise UsageError(
                "schedule linear: expected 0 <= start_iteration <= end_iteration, "
                f"got {self.start_iteration} and {self.end_iteration}"
            )

    def __call__(self, iteration: int) -> float:
        """Return the weight at an iteration, counted from 0."""
        if not self.start_iteration < iteration < self.end_iteration:
            return float(self.end if iteration >= self.end_iteration else self.start)
        done = (iteration - self.start_iteration) / (self.end_iteration - self.start_iteration)
        return self.start + (self.end - self.start) * done


def build_schedule(config: float | Mapping[str, Any]) -> LinearSchedule:
    """Build a schedule from a constant or from a mapping with the fields of `LinearSchedule`.

    Example: `{kind: linear, start: 0, end: 0.03, start_iteration: 500, end_iteration: 1500}`.

    Raises:
        UsageError: the kind or a field is unknown, missing or invalid.
    """
    if isinstance(config, int | float):
        return LinearSchedule(config, config, 0, 0)
    if not isinstance(config, Mapping):
        raise UsageError(f"schedule: expected a number or a mapping with kind, got {config!r}")
    values = dict(config)
    if (kind := values.pop("kind", None)) != "linear":
        raise UsageError(f"schedule: kind must be linear, got {kind!r}")
    expected = sorted(field.name for field in fields(LinearSchedule))
    if sorted(values) != expected:
        got = ", ".join(sorted(values)) or "nothing"
        raise UsageError(f"schedule linear: expected {', '.join(expected)}; got {got}")
    return LinearSchedule(**values)


class IdentityLoss(nn.Module):
    """Identity loss: 1 minus the cosine similarity of the features of two faces.

    The features are the mean over the positions of the last feature map of a frozen face encoder.

    Args:
        backbone: backbone of a `FaceEncoder`.
        weights: "imagenet" (downloaded by torchvision) or the path of a torchvision state dict,
            for example of a face recognition network.

    Paper: Deng et al., "ArcFace", 2019, arXiv:1801.07698, for the cosine of embeddings.
    """

    def __init__(self, backbone: str = "mobilenet_v3", weights: str | Path = "imagenet") -> None:
        super().__init__()
        self.encoder = FaceEncoder(backbone, dim=1, weights=weights).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> IdentityLoss:
        """Keep the network in evaluation mode regardless of `mode`."""
        return super().train(False)

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the loss for faces float [N, 3, H, W] in [0, 1]: a scalar in [0, 2]."""
        with torch.no_grad():
            expected = self._embed(target)
        return 1 - F.cosine_similarity(self._embed(predicted), expected, dim=1).mean()

    def _embed(self, faces: Tensor) -> Tensor:
        return self.encoder(faces).maps[-1].mean(dim=(2, 3))


class LandmarkLoss(nn.Module):
    """Distance between the lip landmarks of generated and real mouths.

    The same frozen regressor predicts all landmarks, so its systematic errors cancel.

    Args:
        checkpoint: path of a lip regressor (`experiment=lip_regressor`), or "default" for the
            packaged one.
    """

    def __init__(self, checkpoint: str | Path = "default") -> None:
        super().__init__()
        self.regressor = load_lip_regressor(checkpoint).model

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean landmark distance, in percent of the side of mouths [..., 3, H, W]."""
        with torch.no_grad():
            expected = self.regressor(target.flatten(0, -4))
        difference = self.regressor(predicted.flatten(0, -4)) - expected
        return 100 * difference.square().sum(-1).add(1e-8).sqrt().mean()


class GeneratorLoss(nn.Module):
    """Loss terms of the generator without weights, and the weight of each term by iteration.

    Args:
        mouth_size: side of the mouth image in pixels.
        weights: a number or a schedule (see `build_schedule`) for each of `TERMS`; missing terms
            have weight 0.
        reconstruction: arguments of `ReconstructionLoss`.
        perceptual: arguments of `PerceptualLoss`, which is built if its weight is not 0.
        landmark: arguments of `LandmarkLoss`, which is built if its weight is not 0.
        identity: arguments of `IdentityLoss`, which is built if its weight is not 0.
        adversarial_kind: "hinge", "least_squares" or "relativistic"; see `AdversarialLoss`.
        sync_rgb_gradient: fraction of the sync loss's gradient that reaches the RGB output and
            the mask; the gradient of the flow is not scaled. High values cause smudges.

    Raises:
        UsageError: `weights` names an unknown term, or a loss's argument is invalid.
        CheckpointError: the lip regressor's file is missing, broken or holds another network.
        DependencyError: pretrained weights are not available.
    """

    prior: Tensor

    def __init__(
        self,
        mouth_size: int,
        weights: Mapping[str, Any],
        reconstruction: Mapping[str, Any] | None = None,
        perceptual: Mapping[str, Any] | None = None,
        landmark: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
        adversarial_kind: AdversarialKind = "relativistic",
        sync_rgb_gradient: NonNegativeFloat = 0.7,
    ) -> None:
        super().__init__()
        unknown = sorted(set(weights) - set(TERMS))
        if unknown:
            raise UsageError(f"loss.weights has no {', '.join(unknown)}; it has {', '.join(TERMS)}")
        self._schedules = {name: build_schedule(weights.get(name, 0.0)) for name in TERMS}
        self.reconstruction = ReconstructionLoss(mouth_size, **(reconstruction or {}))
        used = {name for name, weight in weights.items() if weight != 0}
        self.perceptual = PerceptualLoss(**(perceptual or {})) if "perceptual" in used else None
        self.landmark = LandmarkLoss(**(landmark or {})) if "landmark" in used else None
        self.identity = IdentityLoss(**(identity or {})) if "identity" in used else None
        self.register_buffer("prior", lip_mask_prior(mouth_size), persistent=False)
        self.adversarial = AdversarialLoss(adversarial_kind)
        self.sync_rgb_gradient = sync_rgb_gradient

    def weights_at(self, iteration: int) -> dict[str, float]:
        """Return the weight of every term at an iteration, counted from 0."""
        return {name: schedule(iteration) for name, schedule in self._schedules.items()}

    @property
    def is_adversarial(self) -> bool:
        """Whether the weight of the adversarial term is above 0 at any iteration."""
        schedule = self._schedules["adversarial"]
        return max(schedule.start, schedule.end) > 0

    def forward(
        self,
        output: GeneratorOutput,
        target: Tensor,
        weights: Mapping[str, float],
        batch: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return the scalar loss terms that need neither a discriminator nor a sync expert.

        Args:
            output: output of the generator.
            target: real mouths, float [B, T, 3, H, W] in [0, 1].
            weights: weights from `weights_at`.
            batch: mean_mouth, lips and lip_points of the targets (see `finish_batch`), the latter
                two NaN where unknown.
        """
        motion = self.reconstruction.motion_weights(target, batch["mean_mouth"])
        terms = self.reconstruction(output.mouth, target, motion)
        if self.perceptual is not None and weights["perceptual"] > 0:
            terms["perceptual"] = self.perceptual(output.mouth, target)
        if self.landmark is not None and weights["landmark"] > 0:
            terms["landmark"] = self.landmark(output.mouth, target)
        # The RGB output and the warped mouth are also compared separately: where the mask hides one
        # of the two images, the loss of the blended mouth gives that image no gradient.
        difference = (output.rgb - target).abs() * self.prior * motion
        terms["rgb"] = difference.mean() / self.prior.mean()
        terms["warped"] = (output.warped - target).abs().mean()
        if output.motion is not None and output.points is not None and weights["lips"] > 0:
            terms["lips"] = lip_distance(output.motion, batch["lips"])
            terms["lips"] += lip_distance(output.points, batch["lip_points"])
        if output.pseudo_label_motion is not None and weights["pseudo_label"] > 0:
            predicted = output.pseudo_label_motion
            terms["pseudo_label"] = lip_distance(predicted, batch["pseudo_label_lips"])
        assert output.residual is not None
        terms["flow"] = flow_roughness(output.residual)
        terms["mask"] = output.mask.mean()
        return terms

    def adversarial_terms(
        self, discriminator: nn.Module, fake: Sequence[Tensor], real: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return the adversarial and feature-matching terms for generated and real images."""
        fake_logits, fake_features = discriminator(*fake)
        with torch.no_grad():
            real_logits, real_features = discriminator(*real)
        return {
            "adversarial": self.adversarial.generator(fake_logits, real_logits),
            "feature_matching": feature_matching(fake_features, real_features),
        }

    def identity_term(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Return the identity term for faces [N, 3, H, W]; an empty dict if its weight is 0."""
        return {} if self.identity is None else {"identity": self.identity(fake, real)}

    def mouths_for_sync(self, output: GeneratorOutput) -> Tensor:
        """Return the mouths, with gradients of RGB and mask scaled by `sync_rgb_gradient`."""
        rgb = scale_gradient(output.rgb, self.sync_rgb_gradient)
        mask = scale_gradient(output.mask, self.sync_rgb_gradient)
        return mask * rgb + (1 - mask) * output.warped


def lip_distance(predicted: Tensor, lips: Tensor) -> Tensor:
    """Return the mean smooth L1 distance of lips [..., 20, 2]; NaN targets are ignored."""
    known = torch.isfinite(lips)
    difference = torch.where(known, predicted - torch.nan_to_num(lips), 0.0)
    total = F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="sum")
    return total / known.sum().clamp_min(1)


def flow_roughness(flow: Tensor) -> Tensor:
    """Return 1000 times the mean squared difference between neighbours in a flow [..., 2, h, w]."""
    across, down = flow.diff(dim=-1), flow.diff(dim=-2)
    return 1000 * (across.square().mean() + down.square().mean())


def scale_gradient(value: Tensor, factor: float) -> Tensor:
    """Return `value` unchanged, with its gradient scaled by `factor`."""
    return value * factor + value.detach() * (1 - factor)
