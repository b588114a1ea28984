"""A head's angles: found again from what a camera sees of it, whoever's lens it was."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from talkinghead.features.faces.head_pose import _FACE_CM, _POINTS, MIRRORED, head_pose, head_turn
from talkinghead.types import FloatArray

ANGLES = [(0, 0, 0), (25, 0, 0), (0, 20, 0), (0, 0, 30), (-20, -15, 10), (35, 10, -40)]


def photograph(
    angles: tuple[float, ...],
    distance_cm: float = 100.0,
    topology: str = "mesh468",
    noise: float = 0,
) -> FloatArray:
    """The points of a head of 200 pixels, seen from a distance.

    The camera looks at the head's middle, `head_pose` at the face, which is some degrees beside it.
    """
    yaw, pitch, roll = np.radians(angles)
    axes = np.diag([pitch, -yaw, roll])
    about_x, about_y, about_z = (cv2.Rodrigues(axis)[0] for axis in axes)
    head = np.array(list(_FACE_CM.values())) @ (about_z @ about_y @ about_x).T
    seen = head[:, :2] / (1 + head[:, 2:] / distance_cm) * 20 + 300
    points = np.zeros((468, 2), np.float32)
    points[_POINTS[topology]] = seen + np.random.default_rng(0).normal(0, noise, seen.shape)
    return points


@pytest.mark.parametrize("topology", ["mesh468", "ibug68"])
@pytest.mark.parametrize("angles", ANGLES)
def test_the_angles_are_found_again(angles: tuple[float, ...], topology: str) -> None:
    found = head_pose(photograph(angles, topology=topology), topology)
    assert found == pytest.approx(angles, abs=2)


@pytest.mark.parametrize("distance_cm", [40.0, 1000.0])
@pytest.mark.parametrize("angles", ANGLES)
def test_from_near_and_from_afar(angles: tuple[float, ...], distance_cm: float) -> None:
    found = head_pose(photograph(angles, distance_cm), "mesh468")
    assert found == pytest.approx(angles, abs=7)


def test_signs_and_a_mirror() -> None:
    """The nose points to the right of the picture and down, and the head leans clockwise."""
    points = photograph((20, 15, 10))
    tip, base = points[4] - points[[33, 263]].mean(0), points[[98, 327]].mean(0)
    assert points[4][0] > base[0]
    assert tip[1] > (photograph((0, 0, 0))[4] - photograph((0, 0, 0))[[33, 263]].mean(0))[1]
    assert points[263][1] > points[33][1]
    mirrored = points * np.float32([-1, 1])
    pairs = [33, 263, 133, 362, 98, 327]
    mirrored[pairs] = mirrored[[263, 33, 362, 133, 327, 98]]
    expected = head_pose(points, "mesh468") * MIRRORED
    assert head_pose(mirrored, "mesh468") == pytest.approx(expected, abs=0.1)


def test_half_a_pixel_is_a_degree_or_two() -> None:
    found = head_pose(photograph((10, 5, 0), noise=0.5), "mesh468")
    assert found == pytest.approx((10, 5, 0), abs=3)


def test_what_is_no_face_has_no_angles() -> None:
    assert np.isnan(head_pose(np.full((468, 2), np.nan, np.float32), "mesh468")).all()
    assert np.isnan(head_pose(np.ones((468, 2), np.float32), "mesh468")).all()


def test_turns_are_from_the_reference_and_none_where_unknown() -> None:
    poses = np.float32([[10, 5, 0], [np.nan] * 3])
    turn = head_turn(poses, np.float32([4, 5, 1]))
    np.testing.assert_array_equal(turn, np.float32([[6, 0, -1], [0, 0, 0]]))
    assert turn.dtype == np.float32
    assert not head_turn(poses, np.float32([np.nan] * 3)).any()
