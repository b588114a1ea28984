"""Smoothing of landmarks over time."""

from fractions import Fraction

import numpy as np
import pytest

from talkinghead.features.faces.transform_smoothing import LandmarkSmoother, TransformSmoother
from talkinghead.types import AVSpec

FPS = Fraction(25)
FACE = np.random.default_rng(0).uniform(0, 200, (468, 3)).astype(np.float32)


def smooth(landmarks, fps=FPS):
    smoother = LandmarkSmoother(fps)
    smoothed = [points for frame in landmarks for points in smoother.push(frame)]
    return smoothed + smoother.flush()


def test_noise_is_reduced_and_motion_is_kept():
    rng = np.random.default_rng(1)
    seconds = np.arange(60)[:, None, None] / 25
    # A nod at 1 Hz with an amplitude of 20 pixels.
    clean = FACE + 20 * np.sin(2 * np.pi * seconds)
    noise = rng.normal(0, 1, clean.shape)
    smoothed = np.stack(smooth((clean + noise).astype(np.float32)))
    unchanged = np.stack(smooth(clean.astype(np.float32)))
    assert (smoothed - unchanged)[5:-5].std() < 0.7
    assert np.abs(unchanged - clean)[5:-5].max() < 0.5


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30_000, 1001), Fraction(5)])
def test_lag_equals_that_of_the_transforms(fps):
    smoother, transforms = LandmarkSmoother(fps), TransformSmoother(fps, AVSpec())
    counts = [
        (len(smoother.push(FACE)), len(transforms.push(np.eye(2, 3, dtype=np.float32))))
        for _ in range(30)
    ]
    assert all(one == other for one, other in counts)
    assert len(smoother.flush()) == len(transforms.flush()) == 30 - sum(one for one, _ in counts)


def test_frames_without_a_face_are_nan_and_do_not_change_others():
    smoothed = smooth([FACE, FACE, None, FACE, None])
    assert [bool(np.isnan(points).all()) for points in smoothed] == [
        False,
        False,
        True,
        False,
        True,
    ]
    for index in (0, 1, 3):
        assert np.allclose(smoothed[index], FACE, atol=1e-3)


def test_flush_separates_shots():
    smoother = LandmarkSmoother(FPS)
    for _ in range(3):
        assert smoother.push(FACE) == []
    assert len(smoother.flush()) == 3
    assert smoother.push(FACE + 1000) == []
    (first,) = smoother.flush()
    assert np.allclose(first, FACE + 1000, atol=1e-3)
