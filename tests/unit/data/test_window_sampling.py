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


def fractions(**options):
    probabilities = clip_probabilities(SPEAKERS, **options)
    assert probabilities.sum() == pytest.approx(1.0)
    names = np.array(SPEAKERS)
    return {name: probabilities[names == name].sum() for name in "abc"}


def test_temperature_balances_speakers():
    assert fractions(temperature=1.0)["a"] == pytest.approx(64 / 69)
    assert fractions(temperature=0.0) == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert fractions() == pytest.approx({"a": 8 / 11, "b": 2 / 11, "c": 1 / 11})


def test_speakers_without_a_weight_divide_the_rest():
    expected = {"a": 0.5, "b": 1 / 3, "c": 1 / 6}
    assert fractions(speaker_weights={"a": 0.5}) == pytest.approx(expected)
    expected = {"a": 0.0, "b": 1.0, "c": 0.0}
    assert fractions(speaker_weights={"b": 1.0}) == pytest.approx(expected)


@pytest.mark.parametrize("weights", [{"a": 1.2}, {"a": -0.1}, {"d": 0.1}, {"a": 0, "b": 0, "c": 0}])
def test_invalid_weights_are_refused(weights):
    with pytest.raises(UsageError, match="speaker_weights"):
        clip_probabilities(SPEAKERS, weights)


def test_batches_depend_on_the_iteration():
    sampler = IterationBatchSampler(3, 4)
    first = list(sampler)
    assert first[0] == [0, 1, 2]
    assert len(sampler) == len(first) == 4
    sampler.iteration = 2
    assert list(sampler)[:2] == first[2:]
    assert sampler.iteration_of(first[3][0]) == 3


def test_processes_divide_an_iteration_without_overlap():
    ranks = [IterationBatchSampler(2, 5, rank, 3) for rank in range(3)]
    for iteration, batches in enumerate(zip(*ranks, strict=True)):
        drawn = sorted(index for batch in batches for index in batch)
        assert drawn == list(range(6 * iteration, 6 * iteration + 6))
        assert {ranks[0].iteration_of(batch[0]) for batch in batches} == {iteration}


@pytest.mark.parametrize("num_windows", [5, 64])
def test_windows_are_spread_evenly_over_clips(num_windows):
    num_starts = [10, 1, 70, 30]
    windows = spread_windows(num_starts, num_windows)
    assert len(windows) == num_windows
    assert all(0 <= start < num_starts[clip] for clip, start in windows)
    counts = np.bincount([clip for clip, _ in windows], minlength=4)
    assert counts.max() - counts.min() <= 1
    if num_windows == 64:
        assert len({start for clip, start in windows if clip == 2}) > 10
