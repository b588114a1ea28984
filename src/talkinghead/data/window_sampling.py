"""Deterministic sampling: a sample depends only on the seed and on the index of the sample.

Therefore a resumed run sees the same samples, with any number of loader processes.
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
    """Return a random generator for a sample; different streams give independent numbers."""
    return np.random.default_rng((seed, stream, number))


def clip_probabilities(
    speakers: Sequence[str],
    speaker_weights: Mapping[str, float] | None = None,
    temperature: float = 0.5,
) -> npt.NDArray[np.float64]:
    """Return the sampling probability of each clip, balanced between the speakers.

    `speakers` has the speaker of each clip; see `SamplingOptions` for the other arguments.

    Raises:
        UsageError: A weight is negative, the sum of the weights exceeds 1, a named speaker has no
            clips, or all weights are 0.
    """
    counts = Counter(speakers)
    named = dict(speaker_weights or {})
    missing = sorted(set(named) - set(counts))
    if missing:
        raise UsageError(
            f"speaker_weights names {', '.join(missing)}, who have no clips; "
            f"there are {', '.join(counts)}"
        )
    left = 1.0 - sum(named.values())
    if min(named.values(), default=0.0) < 0 or left < -1e-6:
        raise UsageError(
            f"speaker_weights must be at least 0 and in total at most 1, but they are {named}"
        )
    others = {name: count**temperature for name, count in counts.items() if name not in named}
    total = sum(others.values())
    weights = named | {name: max(0.0, left) * weight / total for name, weight in others.items()}
    probabilities = np.array([weights[name] / counts[name] for name in speakers])
    if not probabilities.sum() > 0:
        raise UsageError(f"speaker_weights leave no clip to draw: they are {named}")
    return np.asarray(probabilities / probabilities.sum())


def spread_windows(num_starts: Sequence[int], num_windows: int) -> list[tuple[int, int]]:
    """Return pairs (clip, start) that are spread evenly over the clips.

    Clip number `i` has `num_starts[i]` possible starts, over which the windows are spread evenly
    too.
    """
    windows = []
    for number in range(num_windows):
        position = (number + 0.5) / num_windows * len(num_starts)
        clip = math.floor(position)
        # Multiples of the golden ratio spread the starts even if each clip has only one window.
        fraction = (position - clip + number * 0.6180339887) % 1.0
        windows.append((clip, math.floor(fraction * num_starts[clip])))
    return windows


class IterationBatchSampler(Sampler[list[int]]):
    """A sampler whose batches of sample indices depend only on the iteration.

    Each of `world_size` processes gets different batches of `batch_size` samples.

    Attributes:
        iteration: First iteration of the next epoch. The caller updates it when a batch is
            consumed, because loaders fetch batches in advance.
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
        """Return the iteration to which a sample index belongs."""
        return index // (self.batch_size * self.world_size)
