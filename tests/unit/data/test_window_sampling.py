"""Tests of deterministic sampling."""

import numpy as np
import pytest

from talkinghead.data.window_sampling import (
    IterationBatchSampler,
    clip_probabilities,
    spread_windows,
)
from talkinghead.errors import UsageError

SPEAKERS = ["a"] * 64 + ["b"] * 4 + ["c"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0}, (64 / 69, 4 / 69, 1 / 69)),
        ({"temperature": 0.0}, (1 / 3, 1 / 3, 1 / 3)),
        ({}, (8 / 11, 2 / 11, 1 / 11)),
        ({"speaker_weights": {"a": 0.5}}, (0.5, 1 / 3, 1 / 6)),
    ],
)
def test_speakers_have_the_expected_fractions(options, expected):
    probabilities = clip_probabilities(SPEAKERS, **options)
    parts = np.split(probabilities, [64, 68])
    assert [part.sum() for part in parts] == pytest.approx(expected)


@pytest.mark.parametrize("weights", [{"a": 1.2}, {"a": -0.1}, {"d": 0.1}, {"a": 0, "b": 0, "c": 0}])
def test_invalid_weights_are_refused(weights):
    with pytest.raises(UsageError, match="speaker_weights"):
        clip_probabilities(SPEAKERS, weights)


def test_processes_divide_an_iteration_without_overlap():
    ranks = [IterationBatchSampler(2, 5, rank, 3) for rank in range(3)]
    for iteration, batches in enumerate(zip(*ranks, strict=True)):
        drawn = sorted(index for batch in batches for index in batch)
        assert drawn == list(range(6 * iteration, 6 * iteration + 6))
        assert {ranks[0].iteration_of(batch[0]) for batch in batches} == {iteration}
    whole = list(ranks[0])
    ranks[0].iteration = 2
    assert list(ranks[0])[:3] == whole[2:]


def test_windows_are_spread_evenly_over_clips():
    num_starts = [10, 1, 70, 30]
    for num_windows in (5, 64):
        windows = spread_windows(num_starts, num_windows)
        assert len(windows) == num_windows
        assert all(0 <= start < num_starts[clip] for clip, start in windows)
        counts = np.bincount([clip for clip, _ in windows], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert len({start for clip, start in windows if clip == 2}) > 10
