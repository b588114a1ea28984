"""Random numbers for the samples of a batch, each from a stream of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """A batch's random numbers, drawn on the CPU so that every device gets the same."""

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        # A prime keeps neighbouring seeds from sharing streams.
        seeds = [(seed * 1_000_003 + index) % 2**63 for index in indices]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.batch = len(indices)

    def uniform(self, low: float, high: float) -> Tensor:
        """[B], in [low, high)."""
        return low + (high - low) * self._rand()

    def symmetric(self, limit: float) -> Tensor:
        """[B], in [-limit, limit)."""
        return self.uniform(-limit, limit)

    def chosen(self, probability: float) -> Tensor:
        """Bool [B]."""
        return self._rand() < probability

    def normal(self, *shape: int, chosen: Tensor | None = None) -> Tensor:
        """Standard normal [B, *shape], or for the `chosen` samples alone, bool [B]."""
        which = [True] * self.batch if chosen is None else chosen.tolist()
        drawn = zip(self._generators, which, strict=True)
        return torch.stack([torch.randn(shape, generator=g) for g, wanted in drawn if wanted])

    def _rand(self) -> Tensor:
        return torch.cat([torch.rand(1, generator=g) for g in self._generators])
