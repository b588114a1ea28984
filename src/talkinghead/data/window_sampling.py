"""What is drawn when: pure functions of (seed, sample number).

So resuming is exact, and the number of workers does not matter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from talkinghead.errors import UsageError


def make_rng(seed: int, stream: int, number: int) -> np.random.Generator:
    """One sample's generator; `stream` keeps apart draws that must not depend on one another."""
    return np.random.default_rng((seed, stream, number))


def clip_probabilities(
    speakers: Sequence[str],
    speaker_weights: Mapping[str, float] | None = None,
    temperature: float = 0.5,
) -> npt.NDArray[np.float64]:
    """How probable each clip is, so that a speaker of many clips does not drown the others.

    Args:
        speakers: each clip's speaker.
        speaker_weights: shares of speakers, in all at most 1. Speakers that are not named divide
            what is left.
        temperature: a speaker's weight is its number of clips to this power: 1 draws clips evenly,
            0 speakers.

    Returns:
        float64 [num_clips], summing to 1.

    Raises:
        UsageError: a weight is negative, or names exceed 1, or a named speaker has no clips, or
            nothing has weight.
    """
    counts = Counter(speakers)
    named = dict(speaker_weights or {})
    missing = sorted(set(named) - set(counts))
    if missing:
        raise UsageError(
            f"speaker_weights names {', '.join(missing)}, without clips; "
            f"there are {', '.join(counts)}"
        )
    left = 1.0 - sum(named.values())
    if min(named.values(), default=0.0) < 0 or left < -1e-6:
        raise UsageError(
            f"speaker_weights are shares of at least 0 and in all at most 1, got {named}"
        )
    others = {name: count**temperature for name, count in counts.items() if name not in named}
    total = sum(others.values())
    shares = named | {name: max(0.0, left) * weight / total for name, weight in others.items()}
    probabilities = np.array([shares[name] / counts[name] for name in speakers])
    if not probabilities.sum() > 0:
        raise UsageError(f"speaker_weights leave no clip to draw, got {named}")
    return np.asarray(probabilities / probabilities.sum())


def spread_windows(num_starts: Sequence[int], num_windows: int) -> list[tuple[int, int]]:
    """Windows spread evenly over clips and over the time within: (clip, start) pairs.

    Args:
        num_starts: how many windows each clip has room for.
        num_windows: how many are wanted.
    """
    windows = []
    for number in range(num_windows):
        position = (number + 0.5) / num_windows * len(num_starts)
        clip = math.floor(position)
        # The golden ratio spreads the starts where every clip is visited once.
        inside = (position - clip + number * 0.6180339887) % 1.0
        windows.append((clip, math.floor(inside * num_starts[clip])))
    return windows


class IterationBatchSampler(Sampler[list[int]]):
    """Sample numbers of the iterations from `iteration` on, the same however one got there.

    Args:
        batch_size: samples of a batch, per process.
        iterations_per_epoch: batches of one pass through the loader.
        rank: this process's number.
        world_size: how many processes train together.

    Attributes:
        iteration: where the next pass begins. Whoever trains sets it as batches are consumed:
            loaders fetch ahead.
    """

    def __init__(
        self, batch_size: int, iterations_per_epoch: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.batch_size = batch_size
        self.iterations_per_epoch = iterations_per_epoch
        self.rank = rank
        self.world_size = world_size
        self.iteration = 0

    def __len__(self) -> int:
        return self.iterations_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self.iteration, self.iteration + self.iterations_per_epoch):
            first = (iteration * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))

    def iteration_of(self, index: int) -> int:
        """The iteration that a sample number belongs to."""
        return index // (self.batch_size * self.world_size)
