"""The warp of a tracked face, on images of coordinates, whose values are the sources of pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from talkinghead.features.faces.head_pose import fit_face_frame
from talkinghead.predict.source.head.expression.blendshapes import LIDS, load_basis, to_weights
from talkinghead.predict.source.head.expression.emotions import EMOTIONS, Emotion
from talkinghead.predict.source.head.expression.expression_field import ExpressionField
from talkinghead.predict.source.head.expression.tracked_field import move_skin
from talkinghead.types import Box, Face

SIDE, SCALE, CENTRE = 400, 10.0, np.array([200.0, 200.0])
NAMES = [name for name in EMOTIONS if name != "neutral"]
COORDINATES = np.stack(
    [*np.meshgrid(*2 * [np.arange(SIDE)]), np.zeros((SIDE, SIDE))], -1, dtype=np.float32
)


def make_face(yaw_deg=0.0, roll_deg=0.0, noise=None):
    """Return the face of the blendshape basis with the given yaw, roll and noise of points."""
    yaw, roll = np.radians([yaw_deg, roll_deg])
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    lean = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    points = SCALE * load_basis().points.astype(float) @ (lean @ turn).T + [*CENTRE, 0]
    if noise is not None:
        points += noise
    points = points.astype(np.float32)
    return Face(Box(120, 110, 280, 290), points[:, :2].copy(), 1.0, "mesh468", -points[:, 2])


POINTS = make_face().points


def shift(face, weights):
    """Return the displacement of each pixel from its source, float [SIDE, SIDE, 2]."""
    moved = COORDINATES.copy()
    move_skin(moved, face, fit_face_frame(face), weights)
    return (COORDINATES - moved)[..., :2]


def at(field, points):
    return cv2.remap(field, np.float32(points)[None], None, cv2.INTER_LINEAR)[0]


@pytest.mark.parametrize("name", NAMES)
def test_skin_moves_as_that_of_a_photo(name):
    face, weights = make_face(), Emotion(name).weights
    frame = fit_face_frame(face)
    xy = np.stack(np.meshgrid(*2 * [np.arange(0, SIDE, 2.0)]), -1).astype(np.float32)
    field = ExpressionField(face, frame, xy)
    photo = np.zeros_like(xy)
    photo[field.window] = field.shift(weights)
    skin = np.delete(np.arange(468), np.concatenate([*LIDS["Left"], *LIDS["Right"]]))
    expected = at(photo, face.points[skin] / 2)
    found = at(shift(face, weights), face.points[skin] + expected)
    far = np.linalg.norm(expected, axis=1) > 0.4 * np.linalg.norm(expected, axis=1).max()
    slope = (found[far] * expected[far]).sum() / np.square(expected[far]).sum()
    assert slope == pytest.approx(1, abs=0.15)
    assert np.linalg.norm(found - expected, axis=1).mean() < 0.8


def test_motion_leans_with_the_head():
    weights = Emotion("happy").weights
    angle = np.radians(25)
    lean = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright, leaning = make_face(), make_face(roll_deg=25)
    expected = at(shift(upright, weights), upright.points) @ lean.T
    found = at(shift(leaning, weights), leaning.points)
    assert np.abs(found - expected).max() < 0.3


@pytest.mark.parametrize("yaw_deg", [-35, 35])
def test_turned_face_is_not_folded(yaw_deg):
    for name in NAMES:
        moved = shift(make_face(yaw_deg), Emotion(name).weights)
        for axis in (0, 1):
            assert np.diff(moved[..., axis], axis=1 - axis).max() < 0.97


@pytest.mark.parametrize("name", NAMES)
def test_motion_grows_with_the_intensity(name):
    face = make_face()
    lengths = [
        np.linalg.norm(at(shift(face, Emotion(name, part).weights), face.points), axis=1).mean()
        for part in (0.25, 0.5, 0.75, 1)
    ]
    assert lengths == sorted(lengths)
    assert lengths[3] > 1.6 * lengths[1]


def test_pixels_outside_the_face_are_unchanged():
    face = make_face(yaw_deg=20, roll_deg=10)
    hull = cv2.convexHull(face.points)[:, 0]
    outline = face.points.mean(0) + 1.13 * (hull - face.points.mean(0))
    inside = cv2.fillConvexPoly(np.zeros((SIDE, SIDE), np.uint8), np.rint(outline).astype(int), 1)
    for name in NAMES:
        moved = shift(face, Emotion(name).weights)
        assert not moved[inside == 0].any()
        assert np.abs(moved).max() > 2


def test_noise_of_landmarks_hardly_moves_the_skin():
    rng = np.random.default_rng(0)
    for name in NAMES:
        fields = [
            at(shift(make_face(noise=rng.normal(0, 0.5, (468, 3))), Emotion(name).weights), POINTS)
            for _ in range(8)
        ]
        assert np.std(fields, axis=0).mean() < 0.1


def test_nothing_moves_without_weights_or_space():
    face = make_face()
    assert not shift(face, to_weights({})).any()
    assert not shift(face, to_weights({"eyeBlinkLeft": 1, "tongueOut": 1})).any()
    image = np.zeros((40, 40, 3), np.uint8)
    move_skin(image, face, fit_face_frame(face), Emotion("happy").weights)


def test_face_at_the_border_of_the_image_is_moved():
    face = make_face()
    image = np.random.default_rng(0).integers(0, 256, (SIDE, 230, 3)).astype(np.uint8)
    moved = image.copy()
    move_skin(moved, face, fit_face_frame(face), Emotion("surprised").weights)
    assert (moved != image).any()


def test_faces_with_68_landmarks_are_moved():
    full = make_face()
    points = np.zeros((68, 2), np.float32)
    known = {36: 33, 39: 133, 42: 362, 45: 263, 27: 168, 31: 98, 35: 327, 30: 4}
    for index, other in known.items():
        points[index] = full.points[other]
    face = Face(full.box, points, 1.0, "ibug68")
    weights = Emotion("happy").weights
    moved, expected = (at(shift(f, weights), full.points) for f in (face, full))
    assert np.abs(moved - expected).max() < 0.25 * np.abs(expected).max()
