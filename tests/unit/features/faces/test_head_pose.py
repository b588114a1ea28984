"""Head pose from landmarks of a projected head model."""

import cv2
import numpy as np
import pytest

from talkinghead.features.faces.head_pose import _FACE_CM, _POINTS, MIRRORED, head_pose, head_turn


def project(angles, distance_cm=100.0, topology="mesh468", noise=0):
    """Return the points of a head of about 200 pixels at a distance from the camera."""
    yaw, pitch, roll = np.radians(angles)
    axes = np.diag([pitch, -yaw, roll])
    about_x, about_y, about_z = (cv2.Rodrigues(axis)[0] for axis in axes)
    head = np.array(list(_FACE_CM.values())) @ (about_z @ about_y @ about_x).T
    projected = head[:, :2] / (1 + head[:, 2:] / distance_cm) * 20 + 300
    points = np.zeros((468, 2), np.float32)
    noise_xy = np.random.default_rng(0).normal(0, noise, projected.shape)
    points[_POINTS[topology]] = projected + noise_xy
    return points


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, 0, 0), (0, 20, 0), (0, 0, 30), (35, 10, -40)])
def test_head_pose_is_recovered_from_projected_points(angles):
    for topology in ("mesh468", "ibug68"):
        found = head_pose(project(angles, topology=topology), topology)
        assert found == pytest.approx(angles, abs=2)
    for distance_cm in (40.0, 1000.0):
        found = head_pose(project(angles, distance_cm), "mesh468")
        assert found == pytest.approx(angles, abs=7)
    found = head_pose(project(angles, noise=0.5), "mesh468")
    assert found == pytest.approx(angles, abs=3)


def test_signs_of_angles_and_mirroring():
    points, frontal = project((20, 15, 10)), project((0, 0, 0))
    # The nose points right and down, and the head leans clockwise.
    assert points[4][0] > points[[98, 327]].mean(0)[0]
    drop = [p[4][1] - p[[33, 263]].mean(0)[1] for p in (points, frontal)]
    assert drop[0] > drop[1]
    assert points[263][1] > points[33][1]
    mirrored = points * np.float32([-1, 1])
    mirrored[[33, 263, 133, 362, 98, 327]] = mirrored[[263, 33, 362, 133, 327, 98]]
    expected = head_pose(points, "mesh468") * MIRRORED
    assert head_pose(mirrored, "mesh468") == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_unknown_or_degenerate_points_give_nan(value):
    assert np.isnan(head_pose(np.full((468, 2), value, np.float32), "mesh468")).all()


def test_head_turn_is_relative_to_the_reference_and_zero_where_unknown():
    poses = np.float32([[10, 5, 0], [np.nan] * 3])
    turn = head_turn(poses, np.float32([4, 5, 1]))
    np.testing.assert_array_equal(turn, np.float32([[6, 0, -1], [0, 0, 0]]))
    assert turn.dtype == np.float32
