"""Temporal smoothing of alignment transforms."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from talkinghead.features.faces.alignment import transform_scale
from talkinghead.features.faces.transform_smoothing import TransformSmoother, smooth_transforms
from talkinghead.types import AVSpec

SPEC = AVSpec()
FPS = Fraction(25)


def similarity(scale=1.0, angle=0.0, x=0.0, y=0.0):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]], dtype=np.float32)


def test_jitter_of_the_scale_is_reduced():
    scales = 1.2 * np.exp(np.random.default_rng(0).normal(0, 0.03, 100))
    smoothed = smooth_transforms(np.stack([similarity(s) for s in scales]), FPS, SPEC)
    assert np.std([transform_scale(t) for t in smoothed]) < 0.25 * np.std(scales)


def test_moving_head_is_followed_without_delay():
    x = 40 * np.sin(2 * np.pi * 0.5 * np.arange(100) / 25)
    smoothed = smooth_transforms(np.stack([similarity(x=v) for v in x]), FPS, SPEC)
    assert np.abs(smoothed[10:90, 0, 2] - x[10:90]).max() < 1.5


def test_cut_resets_the_smoother_and_gaps_are_filled():
    shots = np.stack([similarity()] * 20 + [similarity(2.0, 0.2, 50, 50)] * 20)
    shots[5:9] = np.nan
    smoothed = smooth_transforms(shots, FPS, SPEC, cuts={20})
    np.testing.assert_allclose(smoothed[:20], np.stack([shots[0]] * 20), atol=1e-3)
    np.testing.assert_allclose(smoothed[20:], shots[20:], atol=1e-3)


def test_stream_equals_the_whole_clip_with_a_fixed_lag():
    rng = np.random.default_rng(2)
    transforms = [similarity(rng.normal(1, 0.02), 0.1, *rng.normal(0, 5, 2)) for _ in range(80)]
    smoother = TransformSmoother(FPS, SPEC)
    streamed = []
    for number, transform in enumerate(transforms):
        streamed += smoother.push(transform)
        assert len(streamed) == max(0, number + 1 - smoother.lag)
    streamed += smoother.flush()
    assert np.array_equal(np.stack(streamed), smooth_transforms(np.stack(transforms), FPS, SPEC))


def test_angles_are_continuous_at_half_a_turn():
    turning = np.stack([similarity(angle=a) for a in np.pi + np.linspace(-0.1, 0.1, 50)])
    smoothed = smooth_transforms(turning, FPS, SPEC)
    assert max(transform_scale(t) for t in smoothed) < 1.001
    assert np.abs(smoothed[10:40] - turning[10:40]).max() < 1.0
