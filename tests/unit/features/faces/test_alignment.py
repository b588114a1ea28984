"""Alignment to the canonical face, its smoothing, lip geometry, and mouth crops."""

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talkinghead.features.faces.alignment import (
    LIP_POINTS,
    NUM_LIP_POINTS,
    RIGID_POINTS,
    canonical_points,
    estimate_transform,
    invert,
    lip_motion,
    lip_points,
    masked_face,
    mouth_crop,
    mouth_opening,
    paste_mouth,
    transform_scale,
    warp_face,
)
from talkinghead.features.faces.transform_smoothing import TransformSmoother, smooth_transforms
from talkinghead.types import AVSpec

SPEC = AVSpec()
FPS = Fraction(25)


def similarity(scale=1.0, angle=0.0, x=0.0, y=0.0):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]], dtype=np.float32)


@pytest.mark.parametrize("topology", ["mesh468", "ibug68"])
@pytest.mark.parametrize(("scale", "angle"), [(0.3, 0.5), (2.5, -1.2), (0.8, 3.0)])
def test_transform_is_recovered_from_the_rigid_points(topology, scale, angle):
    transform = similarity(scale, angle, 20.0, -7.0)
    points = np.random.default_rng(0).uniform(0, 100, (468, 2)).astype(np.float32)
    source = cv2.transform(canonical_points(topology, SPEC)[None], invert(transform))[0]
    points[list(RIGID_POINTS[topology])] = source
    found = estimate_transform(points, topology, SPEC)
    np.testing.assert_allclose(found, transform, atol=2e-3)
    np.testing.assert_allclose(invert(found) @ np.append(found[:, 2], 1), 0, atol=0.2)


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.1])
def test_warp_moves_a_point_by_the_transform(scale):
    size = int(256 / scale)
    image = np.zeros((size, size, 3), np.uint8)
    centre = (int(0.4 * size), int(0.6 * size))
    cv2.circle(image, centre, max(1, int(4 / scale)), (255, 255, 255), -1)
    transform = similarity(scale)
    y, x = np.argwhere(warp_face(image, transform, 256)[..., 0] > 100).mean(0)
    assert (x, y) == pytest.approx(tuple(transform @ np.array([*centre, 1.0])), abs=0.8)


def test_shrinking_warp_is_antialiased():
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[::2] = 255
    face = warp_face(stripes, similarity(0.128), 256)
    assert face[20:200, 20:200].std() < 4


def test_mouth_opening_is_relative_to_the_eye_distance():
    points = np.zeros((468, 2), np.float32)
    points[33], points[263] = (0, 0), (100, 0)
    points[13], points[14] = (50, 80), (50, 105)
    for factor in (1, 3, np.nan):
        expected = pytest.approx(0.25 * factor / factor, nan_ok=True)
        assert mouth_opening(points * factor, "mesh468") == expected


def test_mouth_is_masked_cropped_and_pasted():
    rows = torch.linspace(0, 1, 256)[None, None, :, None].expand(2, 3, 256, 256).contiguous()
    expected = (rows[..., ::2, ::2] + rows[..., 1::2, 1::2]) / 2
    x0, y0, x1, y1 = (int(v) // 2 for v in SPEC.mask_box)
    expected[..., y0:y1, x0:x1] = 0
    torch.testing.assert_close(masked_face(rows, SPEC), expected)
    mouths = mouth_crop(rows[:, None], SPEC)
    assert mouths.shape == (2, 1, 3, 96, 96)
    x0, y0, x1, y1 = (int(v) for v in SPEC.mouth_box)
    blank = rows.clone()
    blank[..., y0:y1, x0:x1] = 0
    pasted = paste_mouth(blank[:, None], mouths, SPEC)[:, 0]
    torch.testing.assert_close(pasted, rows, atol=5e-3, rtol=0)


def test_lip_motion_removes_position_and_asymmetry():
    lips = np.zeros((5, 20, 2), np.float32)
    lips[:, :, 0] = np.arange(20)
    lips[2, 18, 1] = 6
    lips[3, 0, 0] -= 4
    lips[4] = np.nan
    motion = lip_motion(lips + np.float32([100, 50]))
    assert np.abs(motion[:2]).max() == 0
    assert motion[2, 18].tolist() == [0, 6]
    # The motion of one corner is averaged over both.
    assert motion[3, [0, 6]].tolist() == [[-2, 0], [2, 0]]
    assert np.isnan(motion[4]).all()


def test_lip_points_have_the_same_order_in_both_topologies():
    assert {len(points) for points in LIP_POINTS.values()} == {NUM_LIP_POINTS}
    points = np.random.default_rng(0).uniform(0, 100, (468, 2)).astype(np.float32)
    lips = lip_points(points, "mesh468", np.array([[2, 0, 5], [0, 2, -3]], np.float32))
    np.testing.assert_allclose(lips[[14, 18]], points[[13, 14]] * 2 + [5, -3], rtol=1e-5)


def test_smoothing_reduces_jitter_of_the_scale():
    scales = 1.2 * np.exp(np.random.default_rng(0).normal(0, 0.03, 100))
    smoothed = smooth_transforms(np.stack([similarity(s) for s in scales]), FPS, SPEC)
    assert np.std([transform_scale(t) for t in smoothed]) < 0.25 * np.std(scales)


def test_smoothed_transforms_follow_a_moving_head_without_delay():
    x = 40 * np.sin(2 * np.pi * 0.5 * np.arange(100) / 25)
    smoothed = smooth_transforms(np.stack([similarity(x=v) for v in x]), FPS, SPEC)
    assert np.abs(smoothed[10:90, 0, 2] - x[10:90]).max() < 1.5


def test_smoother_is_reset_at_cuts_and_fills_missing_frames():
    shots = np.stack([similarity()] * 20 + [similarity(2.0, 0.2, 50, 50)] * 20)
    shots[5:9] = np.nan
    smoothed = smooth_transforms(shots, FPS, SPEC, cuts={20})
    np.testing.assert_allclose(smoothed[:20], np.stack([shots[0]] * 20), atol=1e-3)
    np.testing.assert_allclose(smoothed[20:], shots[20:], atol=1e-3)


def test_streaming_smoother_equals_the_smoothed_clip_with_a_lag():
    rng = np.random.default_rng(2)
    transforms = [similarity(rng.normal(1, 0.02), 0.1, *rng.normal(0, 5, 2)) for _ in range(80)]
    smoother = TransformSmoother(FPS, SPEC)
    streamed = []
    for number, transform in enumerate(transforms):
        streamed += smoother.push(transform)
        assert len(streamed) == max(0, number + 1 - smoother.lag)
    streamed += smoother.flush()
    assert np.array_equal(np.stack(streamed), smooth_transforms(np.stack(transforms), FPS, SPEC))


def test_smoothed_angles_are_continuous_at_180_degrees():
    turning = np.stack([similarity(angle=a) for a in np.pi + np.linspace(-0.1, 0.1, 50)])
    smoothed = smooth_transforms(turning, FPS, SPEC)
    assert max(transform_scale(t) for t in smoothed) < 1.001
    assert np.abs(smoothed[10:40] - turning[10:40]).max() < 1.0


@pytest.mark.corpus
def test_corpus_transforms_do_not_predict_the_mouth_opening():
    from talkinghead.data.clip_file import ClipFile
    from talkinghead.data.manifest import Manifest

    corpus = Path(os.environ["TALKINGHEAD_CORPUS"])
    states, openings = [], []
    for clip in Manifest.load(corpus).clips:
        file = ClipFile(corpus / clip.path)
        transforms, opening = file.tensor("transforms"), file.tensor("mouth_opening")
        found = ~np.isnan(opening)
        states.append(transforms[found].reshape(-1, 6))
        openings.append(opening[found])
    x, y = np.concatenate(states), np.concatenate(openings)
    x, y = np.column_stack([x, np.ones(len(x))]), y - y.mean()
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    assert 1 - np.square(y - x @ weights).sum() / np.square(y).sum() < 0.05
