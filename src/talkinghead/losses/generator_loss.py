"""Loss terms of the generator and their scheduled weights.

Shape suffixes: B clips, T frames, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.errors import UsageError
from talkinghead.losses.adversarial_loss import AdversarialKind, AdversarialLoss, feature_matching
from talkinghead.losses.identity_loss import IdentityLoss
from talkinghead.losses.landmark_loss import LandmarkLoss
from talkinghead.losses.perceptual_loss import PerceptualLoss
from talkinghead.losses.reconstruction_loss import ReconstructionLoss
from talkinghead.losses.weight_schedule import build_schedule
from talkinghead.models.lipsync.decoder import GeneratorOutput, lip_mask_prior

TERMS = (
    "l1",
    "gradient",
    "perceptual",
    "sync",
    "landmark",
    "identity",
    "adversarial",
    "feature_matching",
    "rgb",
    "warped",
    "lips",
    "pseudo_label",
    "flow",
    "mask",
)


class GeneratorLoss(nn.Module):
    """Unweighted loss terms of a batch, and their weights at an iteration.

    Args:
        mouth_size: side of the mouth image in pixels.
        weights: a number or a schedule (see `build_schedule`) for each of `TERMS`; missing terms
            have weight 0.
        reconstruction: arguments of `ReconstructionLoss`.
        perceptual: arguments of `PerceptualLoss`, which is built if its weight is not 0.
        landmark: arguments of `LandmarkLoss`, which is built if its weight is not 0.
        identity: arguments of `IdentityLoss`, which is built if its weight is not 0.
        adversarial_kind: "hinge", "least_squares" or "relativistic"; see `AdversarialLoss`.
        sync_rgb_gradient: fraction of the sync loss's gradient that reaches the painted colours
            and their mask; the rest goes through the flow. High values cause smudges.

    Raises:
        UsageError: `weights` names an unknown term.
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
        sync_rgb_gradient: float = 0.7,
    ) -> None:
        super().__init__()
        unknown = sorted(set(weights) - set(TERMS))
        if unknown:
            raise UsageError(f"loss.weights has no {', '.join(unknown)}; it has {', '.join(TERMS)}")
        self._schedules: dict[str, Callable[[int], float]] = {
            name: build_schedule(weights.get(name, 0.0)) for name in TERMS
        }
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

    def forward(
        self,
        output: GeneratorOutput,
        target: Tensor,
        weights: Mapping[str, float],
        batch: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return the terms that need neither discriminator nor sync expert, as scalars.

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
        # RGB and warp are also compared on their own: where the mask hides one of them, the loss on
        # the blended mouth gives it no gradient.
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
        """Return the adversarial and feature-matching terms of generated and real inputs."""
        fake_logits, fake_features = discriminator(*fake)
        with torch.no_grad():
            real_logits, real_features = discriminator(*real)
        return {
            "adversarial": self.adversarial.generator(fake_logits, real_logits),
            "feature_matching": feature_matching(fake_features, real_features),
        }

    def identity_term(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Return the identity term of faces [N, 3, H, W], or nothing if its weight is 0."""
        return {} if self.identity is None else {"identity": self.identity(fake, real)}

    def mouths_for_sync(self, output: GeneratorOutput) -> Tensor:
        """Return the mouths with the gradient of RGB and mask scaled by `sync_rgb_gradient`."""
        rgb = scale_gradient(output.rgb, self.sync_rgb_gradient)
        mask = scale_gradient(output.mask, self.sync_rgb_gradient)
        return mask * rgb + (1 - mask) * output.warped


def lip_distance(predicted: Tensor, lips: Tensor) -> Tensor:
    """Return mean smooth L1 of lips [..., 20, 2] in canonical pixels; NaN targets are ignored."""
    known = torch.isfinite(lips)
    difference = torch.where(known, predicted - torch.nan_to_num(lips), 0.0)
    total = F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="sum")
    return total / known.sum().clamp_min(1)


def flow_roughness(flow: Tensor) -> Tensor:
    """Return 1000 times the mean squared difference of neighbours in a flow [..., 2, h, w]."""
    across, down = flow.diff(dim=-1), flow.diff(dim=-2)
    return 1000 * (across.square().mean() + down.square().mean())


def scale_gradient(value: Tensor, factor: float) -> Tensor:
    """Return the same value with its gradient scaled by `factor`."""
    return value * factor + value.detach() * (1 - factor)
