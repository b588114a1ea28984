"""The two sides of a GAN, on logits, what keeps them in balance, and feature matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from talkinghead.errors import UsageError

Logits = Tensor | Sequence[Tensor]
AdversarialKind = Literal["hinge", "least_squares", "relativistic"]


def _as_list(value: Logits) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _average(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack([term.float() for term in terms]).mean()


class AdversarialLoss:
    """Hinge, least squares or relativistic, for discriminators that give logits (no sigmoid).

    Logits may have any shape. Several discriminators, or scales of one, are given as a list and
    averaged. The relativistic one asks which of a pair is real: where a pair is the same frame,
    generated and real, all that the two have in common drops out, and a discriminator learns much
    faster what tells them apart (docs/training.md).

    Args:
        kind: "hinge" (Lim and Ye, 2017, arXiv:1705.02894), "least_squares" (Mao et al., 2017,
            arXiv:1611.04076, towards 1 for real and 0 for fake) or "relativistic"
            (Jolicoeur-Martineau, 2018, arXiv:1807.00734).

    Raises:
        UsageError: `kind` is another.
    """

    def __init__(self, kind: AdversarialKind = "relativistic") -> None:
        if kind not in get_args(AdversarialKind):
            kinds = ", ".join(get_args(AdversarialKind))
            raise UsageError(f"AdversarialLoss: kind must be one of {kinds}, got {kind!r}")
        self.kind = kind

    def discriminator(self, real: Logits, fake: Logits) -> Tensor:
        """What the discriminator minimises, a scalar; the fake logits come from detached images."""
        pairs = list(zip(_as_list(real), _as_list(fake), strict=True))
        if self.kind == "relativistic":
            return _average([F.softplus(f - r).mean() for r, f in pairs])
        if self.kind == "hinge":
            terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in pairs]
        else:
            terms = [(r - 1).square().mean() + f.square().mean() for r, f in pairs]
        return 0.5 * _average(terms)

    def generator(self, fake: Logits, real: Logits) -> Tensor:
        """What the generator minimises, a scalar; only the relativistic one looks at `real`."""
        if self.kind == "relativistic":
            return self.discriminator(fake, real)
        if self.kind == "hinge":
            return _average([-f.mean() for f in _as_list(fake)])
        return _average([(f - 1).square().mean() for f in _as_list(fake)])


def gradient_penalty(logits: Logits, pictures: Sequence[Tensor]) -> Tensor:
    """How steep discriminators are where they look: squared gradient of a logit, a scalar.

    Args:
        logits: of pictures that require gradients, [N, 1, h, w] for each discriminator.
        pictures: one for each discriminator, [N, ...]; more are left alone.

    Paper: Mescheder et al., 2018, arXiv:1801.04406 (R1 on real pictures, R2 on generated ones).
    """
    logits = _as_list(logits)
    seen = pictures[: len(logits)]
    gradients = torch.autograd.grad([x.sum() for x in logits], seen, create_graph=True)
    steep = [g.square().sum() / x.numel() for g, x in zip(gradients, logits, strict=True)]
    return _average(steep)


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L1 between a discriminator's inner features of fake and real images, averaged over layers.

    Args:
        fake: features of the generated images, one tensor a layer.
        real: features of the real ones, the same shapes; no gradient goes through them.

    Paper: Wang et al., 2018, arXiv:1711.11585.
    """
    return _average([F.l1_loss(f, r.detach()) for f, r in zip(fake, real, strict=True)])
