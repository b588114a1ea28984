"""Random numbers of a batch, from one generator per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RandomStreams:
    """Random numbers of a batch, drawn on the CPU so that every device gets the same ones.

    Args:
        seed: seed of all streams.
        indices: the samples' numbers; a sample's stream depends on the seed and its number only.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        # With a large prime factor, neighbouring seeds have no streams in common.
        seeds = [(seed * 1_000_003 + index) % 2**63 for index in indices]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.batch_size = len(indices)

    def uniform(self, low: float, high: float) -> Tensor:
        """Return values [B] in [low, high)."""
        return low + (high - low) * self._rand()

    def symmetric(self, limit: float) -> Tensor:
        """Return values [B] in [-limit, limit)."""
        return self.uniform(-limit, limit)

    def bernoulli(self, probability: float) -> Tensor:
        """Return bool [B], true with a probability."""
        return self._rand() < probability

    def normal(self, *shape: int, selected: Tensor | None = None) -> Tensor:
        """Return standard normal [B, *shape], or the rows of the `selected` samples, bool [B]."""
        mask = [True] * self.batch_size if selected is None else selected.tolist()
        pairs = zip(self._generators, mask, strict=True)
        return torch.stack([torch.randn(shape, generator=g) for g, use in pairs if use])

    def _rand(self) -> Tensor:
        return torch.cat([torch.rand(1, generator=g) for g in self._generators])
