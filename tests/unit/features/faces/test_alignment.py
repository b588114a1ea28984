"""The canonical face: exact where it can be, steady, and blind to the mouth."""

from __future__ import annotations

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
    TransformSmoother,
    canonical_points,
    estimate_transform,
    invert,
    lip_motion,
    lip_points,
    masked_face,
    mouth_crop,
    mouth_opening,
    paste_mouth,
    smooth_transforms,
    transform_scale,
    warp_face,
)
from talkinghead.types import AVSpec, FloatArray

SPEC = AVSpec()
FPS = Fraction(25)


def _similarity(scale: float, angle: float, x: float, y: float) -> FloatArray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]], dtype=np.float32)


def _face(transform: FloatArray, topology: str = "mesh468") -> FloatArray:
    """Points whose canonical face `transform` is; those that are not rigid lie anywhere."""
    points = np.random.default_rng(0).uniform(0, 100, (468, 2)).astype(np.float32)
    source = cv2.transform(canonical_points(topology, SPEC)[None], invert(transform))[0]
    points[list(RIGID_POINTS[topology])] = source
    return points


@pytest.mark.parametrize("topology", ["mesh468", "ibug68"])
@pytest.mark.parametrize(("scale", "angle"), [(1.0, 0.0), (0.3, 0.5), (2.5, -1.2), (0.8, 3.0)])
def test_the_transform_is_found_again(topology: str, scale: float, angle: float) -> None:
    transform = _similarity(scale, angle, 20.0, -7.0)
    found = estimate_transform(_face(transform, topology), topology, SPEC)
    np.testing.assert_allclose(found, transform, atol=2e-3)
    np.testing.assert_allclose(invert(found) @ np.append(found[:, 2], 1), 0, atol=0.2)


def test_moving_the_mouth_moves_nothing() -> None:
    points = _face(_similarity(1.5, 0.1, 5, 5))
    before = estimate_transform(points, "mesh468", SPEC)
    rigid = set(RIGID_POINTS["mesh468"])
    others = [i for i in range(468) if i not in rigid]
    points[others] += np.random.default_rng(1).normal(0, 30, (len(others), 2))
    assert np.array_equal(estimate_transform(points, "mesh468", SPEC), before)


def test_smoothing_keeps_what_is_steady_and_calms_what_jitters() -> None:
    still = np.stack([_similarity(1.2, 0.2, 10, 20)] * 60)
    np.testing.assert_allclose(smooth_transforms(still, FPS, SPEC), still, atol=1e-3)
    rng = np.random.default_rng(0)
    scales = 1.2 * np.exp(rng.normal(0, 0.03, 100))
    jittered = np.stack([_similarity(s, 0.0, 0, 0) for s in scales])
    smoothed = smooth_transforms(jittered, FPS, SPEC)
    assert np.std([transform_scale(t) for t in smoothed]) < 0.25 * np.std(scales)


def test_a_moving_head_is_followed_without_delay() -> None:
    times = np.arange(100) / 25
    moving = np.stack([_similarity(1.0, 0.0, 40 * np.sin(2 * np.pi * 0.5 * t), 0) for t in times])
    smoothed = smooth_transforms(moving, FPS, SPEC)
    assert np.abs(smoothed[10:90, 0, 2] - moving[10:90, 0, 2]).max() < 1.5


def test_a_cut_resets_and_gaps_are_filled() -> None:
    shots = np.stack([_similarity(1.0, 0, 0, 0)] * 20 + [_similarity(2.0, 0, 50, 50)] * 20)
    shots[5:9] = np.nan
    smoothed = smooth_transforms(shots, FPS, SPEC, cuts={20})
    np.testing.assert_allclose(smoothed[:20], np.stack([shots[0]] * 20), atol=1e-3)
    np.testing.assert_allclose(smoothed[20:], shots[20:], atol=1e-3)


def test_a_stream_is_smoothed_as_a_file_is() -> None:
    rng = np.random.default_rng(2)
    transforms = np.stack(
        [_similarity(1 + rng.normal(0, 0.02), 0.1, *rng.normal(0, 5, 2)) for _ in range(80)]
    )
    smoother = TransformSmoother(FPS, SPEC)
    streamed: list[FloatArray] = []
    for number, transform in enumerate(transforms):
        streamed += smoother.push(transform)
        assert len(streamed) == max(0, number + 1 - smoother.lag)
    streamed += smoother.flush()
    assert np.array_equal(np.stack(streamed), smooth_transforms(transforms, FPS, SPEC))


def test_angles_do_not_jump_at_half_a_turn() -> None:
    angles = np.pi + np.linspace(-0.1, 0.1, 50)
    turning = np.stack([_similarity(1.0, a, 0, 0) for a in angles])
    smoothed = smooth_transforms(turning, FPS, SPEC)
    assert max(transform_scale(t) for t in smoothed) == pytest.approx(1.0, abs=1e-3)
    assert np.abs(smoothed[10:40] - turning[10:40]).max() < 1.0


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.4, 0.1])
def test_warping_puts_a_mark_where_the_transform_says(scale: float) -> None:
    size = int(256 / scale)
    image = np.zeros((size, size, 3), np.uint8)
    radius = max(1, int(4 / scale))
    centre = (int(0.4 * size), int(0.6 * size))
    cv2.circle(image, centre, radius, (255, 255, 255), -1)
    transform = _similarity(scale, 0.0, 0.0, 0.0)
    face = warp_face(image, transform, 256)
    y, x = np.argwhere(face[..., 0] > 100).mean(0)
    expected = transform @ np.array([*centre, 1.0])
    assert (x, y) == pytest.approx(tuple(expected), abs=0.8)


def test_shrinking_does_not_alias() -> None:
    fine = np.zeros((2000, 2000, 3), np.uint8)
    fine[::2] = 255
    face = warp_face(fine, _similarity(0.128, 0, 0, 0), 256)
    assert face[20:200, 20:200].std() < 4


def test_mouth_opening_is_relative_to_the_eyes() -> None:
    points = np.zeros((468, 2), np.float32)
    points[33], points[263] = (0, 0), (100, 0)
    points[13], points[14] = (50, 80), (50, 105)
    assert mouth_opening(points, "mesh468") == pytest.approx(0.25)
    assert mouth_opening(points * 3, "mesh468") == pytest.approx(0.25)
    assert np.isnan(mouth_opening(points * np.nan, "mesh468"))


def test_crop_mask_and_paste() -> None:
    rows = torch.linspace(0, 1, 256)[None, None, :, None].expand(2, 3, 256, 256).contiguous()
    mouths = mouth_crop(rows[:, None], SPEC)
    assert mouths.shape == (2, 1, 3, 96, 96)
    around = masked_face(rows, SPEC)
    assert around.shape == (2, 3, 128, 128)
    half = tuple(int(v) // 2 for v in SPEC.mask_box)
    assert around[..., half[1] : half[3], half[0] : half[2]].abs().max() == 0
    whole = around.clone()
    expected = (rows[..., ::2, ::2] + rows[..., 1::2, 1::2]) / 2
    whole[..., half[1] : half[3], half[0] : half[2]] = expected[
        ..., half[1] : half[3], half[0] : half[2]
    ]
    torch.testing.assert_close(whole, expected)
    x0, y0, x1, y1 = (int(v) for v in SPEC.mouth_box)
    masked = rows.clone()
    masked[..., y0:y1, x0:x1] = 0
    pasted = paste_mouth(masked[:, None], mouths, SPEC)[:, 0]
    torch.testing.assert_close(pasted, rows, atol=5e-3, rtol=0)


def test_lip_motion_forgets_place_and_sides() -> None:
    lips = np.zeros((5, 20, 2), np.float32)
    lips[:, :, 0] = np.arange(20)
    lips[2, 18, 1] = 6
    lips[3, 0, 0] -= 4
    lips[4] = np.nan
    motion = lip_motion(lips + np.float32([100, 50]))
    assert np.abs(motion[:2]).max() == 0
    assert motion[2, 18].tolist() == [0, 6]
    # Half of what the right corner does, and as much on the other side.
    assert motion[3, 0].tolist() == [-2, 0]
    assert motion[3, 6].tolist() == [2, 0]
    assert np.isnan(motion[4]).all()


def test_lip_points_mean_the_same_in_both_schemes() -> None:
    assert {len(points) for points in LIP_POINTS.values()} == {NUM_LIP_POINTS}
    points = np.random.default_rng(0).uniform(0, 100, (468, 2)).astype(np.float32)
    transform = np.array([[2, 0, 5], [0, 2, -3]], np.float32)
    lips = lip_points(points, "mesh468", transform)
    np.testing.assert_allclose(lips[14], points[13] * 2 + np.float32([5, -3]), rtol=1e-5)
    np.testing.assert_allclose(lips[18], points[14] * 2 + np.float32([5, -3]), rtol=1e-5)


@pytest.mark.corpus
def test_over_a_corpus_the_transform_says_nothing_of_the_mouth() -> None:
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
