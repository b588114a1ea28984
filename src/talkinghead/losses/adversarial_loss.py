"""Adversarial losses, gradient penalty and feature-matching loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from talkinghead.errors import UsageError

Logits = Sequence[Tensor]
AdversarialKind = Literal["hinge", "least_squares", "relativistic"]


def _average(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack([term.float() for term in terms]).mean()


class AdversarialLoss:
    """Adversarial losses of discriminator and generator, for discriminators that return logits.

    Logits may have any shape; the losses are averages over the discriminators. The relativistic
    loss compares a generated frame with the real frame of the same moment, so differences in
    content cancel and the discriminator learns faster (docs/research-log.md).

    Args:
        kind: "hinge" (Lim and Ye, 2017, arXiv:1705.02894), "least_squares" (Mao et al., 2017,
            arXiv:1611.04076, towards 1 for real and 0 for fake) or "relativistic"
            (Jolicoeur-Martineau, 2018, arXiv:1807.00734).

    Raises:
        UsageError: `kind` is unknown.
    """

    def __init__(self, kind: AdversarialKind = "relativistic") -> None:
        if kind not in get_args(AdversarialKind):
            kinds = ", ".join(get_args(AdversarialKind))
            raise UsageError(f"AdversarialLoss: kind must be one of {kinds}, got {kind!r}")
        self.kind = kind

    def discriminator(self, real: Logits, fake: Logits) -> Tensor:
        """Return the discriminator's loss, a scalar; fake logits must come from detached images."""
        pairs = list(zip(real, fake, strict=True))
        if self.kind == "relativistic":
            return _average([F.softplus(f - r).mean() for r, f in pairs])
        if self.kind == "hinge":
            terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in pairs]
        else:
            terms = [(r - 1).square().mean() + f.square().mean() for r, f in pairs]
        return 0.5 * _average(terms)

    def generator(self, fake: Logits, real: Logits) -> Tensor:
        """Return the generator's loss, a scalar; only the relativistic kind uses `real`."""
        if self.kind == "relativistic":
            return self.discriminator(fake, real)
        if self.kind == "hinge":
            return _average([-f.mean() for f in fake])
        return _average([(f - 1).square().mean() for f in fake])


def gradient_penalty(logits: Logits, images: Sequence[Tensor]) -> Tensor:
    """Return the mean squared norm of the gradients of logits with respect to images, a scalar.

    For each discriminator there are logits [N, 1, h, w] of images [N, ...] that require gradients;
    further images are ignored.

    Paper: Mescheder et al., 2018, arXiv:1801.04406 (R1 on real images, R2 on generated ones).
    """
    inputs = images[: len(logits)]
    gradients = torch.autograd.grad([x.sum() for x in logits], inputs, create_graph=True)
    penalties = [g.square().sum() / x.numel() for g, x in zip(gradients, logits, strict=True)]
    return _average(penalties)


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return the mean L1 distance between the features of fake and (detached) real images.

    Paper: Wang et al., 2018, arXiv:1711.11585.
    """
    return _average([F.l1_loss(f, r.detach()) for f, r in zip(fake, real, strict=True)])
