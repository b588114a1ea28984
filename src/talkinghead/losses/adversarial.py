"""The two sides of a GAN, on logits, and feature matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from talkinghead.errors import UsageError

Logits = Tensor | Sequence[Tensor]


def _as_list(value: Logits) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _average(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack([term.float() for term in terms]).mean()


class AdversarialLoss:
    """Hinge or least squares, for discriminators that give logits of any shape (no sigmoid).

    Several discriminators, or scales of one, are given as a list and averaged.

    Args:
        kind: "hinge" (Lim and Ye, 2017, arXiv:1705.02894) or "least_squares" (Mao et al., 2017,
            arXiv:1611.04076, towards 1 for real and 0 for fake).

    Raises:
        UsageError: `kind` is another.
    """

    def __init__(self, kind: Literal["hinge", "least_squares"] = "hinge") -> None:
        if kind not in ("hinge", "least_squares"):
            raise UsageError(f"AdversarialLoss: kind must be hinge or least_squares, got {kind!r}")
        self.kind = kind

    def discriminator(self, real: Logits, fake: Logits) -> Tensor:
        """What the discriminator minimises, a scalar; the fake logits come from detached images."""
        pairs = zip(_as_list(real), _as_list(fake), strict=True)
        if self.kind == "hinge":
            terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in pairs]
        else:
            terms = [(r - 1).square().mean() + f.square().mean() for r, f in pairs]
        return 0.5 * _average(terms)

    def generator(self, fake: Logits) -> Tensor:
        """What the generator minimises, a scalar."""
        if self.kind == "hinge":
            return _average([-f.mean() for f in _as_list(fake)])
        return _average([(f - 1).square().mean() for f in _as_list(fake)])


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L1 between a discriminator's inner features of fake and real images, averaged over layers.

    Args:
        fake: features of the generated images, one tensor a layer.
        real: features of the real ones, the same shapes; no gradient goes through them.

    Paper: Wang et al., 2018, arXiv:1711.11585.
    """
    return _average([F.l1_loss(f, r.detach()) for f, r in zip(fake, real, strict=True)])
