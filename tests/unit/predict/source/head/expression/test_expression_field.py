"""The field of skin displacements on the mesh's own face, without an image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from talkinghead.features.faces.head_pose import FaceFrame
from talkinghead.predict.source.head.expression.blendshapes import (
    BLENDSHAPES,
    INNER_LIPS,
    LIDS,
    load_basis,
    to_weights,
)
from talkinghead.predict.source.head.expression.emotions import EMOTIONS, Emotion
from talkinghead.predict.source.head.expression.expression_field import ExpressionField
from talkinghead.types import Box, Face

SCALE, CELL = 10.0, 3.0
FRAME = FaceFrame(SCALE, np.eye(3), np.array([200.0, 200.0, 0.0]))
POINTS = FRAME.to_image(load_basis().points)
XY = np.stack(np.meshgrid(*2 * [np.arange(0, 400, CELL)]), -1).astype(np.float32)


@pytest.fixture(scope="module")
def field():
    points = POINTS.astype(np.float32)
    face = Face(Box(120, 110, 280, 290), points[:, :2], 1.0, "mesh468", -points[:, 2])
    return ExpressionField(face, FRAME, XY)


def moved(field, weights, indexes=slice(None), offset=(0, 0)):
    """Return the displacement of points of the face, or of others at an offset from these."""
    shift = np.zeros_like(XY)
    shift[field.window] = field.shift(weights)
    cells = ((POINTS[indexes, :2].reshape(1, -1, 2) + offset) / CELL).astype(np.float32)
    return cv2.remap(shift, cells, None, cv2.INTER_LINEAR)[0]


@pytest.mark.parametrize("name", [name for name in EMOTIONS if name != "neutral"])
def test_skin_moves_like_the_mesh(field, name):
    """The eyes are drawn separately, and the mouth is not opened."""
    weights = Emotion(name).weights
    weights[BLENDSHAPES.index("jawOpen")] = 0
    skin = np.delete(np.arange(468), np.concatenate([*LIDS["Left"], *LIDS["Right"], *INNER_LIPS]))
    expected = SCALE * (load_basis().moved(weights) - load_basis().points)[skin, :2]
    found = moved(field, weights, skin)
    far = np.linalg.norm(expected, axis=1) > 0.4 * np.linalg.norm(expected, axis=1).max()
    slope = (found[far] * expected[far]).sum() / np.square(expected[far]).sum()
    assert slope == pytest.approx(0.85, abs=0.2)


def test_closed_lips_stay_closed(field):
    for name in EMOTIONS:
        if name != "neutral":
            upper, lower = (moved(field, Emotion(name).weights, list(lip)) for lip in INNER_LIPS)
            # In pixels of a face 160 pixels wide. At the corners the upper and the lower points are
            # not at the same place along the mouth.
            assert np.abs(upper - lower)[:, 1].max() < 0.8
            assert np.abs(upper - lower)[3:6, 1].max() < 0.1


@pytest.mark.parametrize("opening", [6, 12, 18])
def test_open_lips_keep_their_opening(field, opening):
    """The lower lip of an open mouth is where the chin of the photo is."""
    for name in EMOTIONS:
        if name != "neutral":
            weights = Emotion(name).weights
            upper = moved(field, weights, list(INNER_LIPS[0]))
            lower = moved(field, weights, list(INNER_LIPS[1]), (0, opening))
            assert np.abs(upper - lower)[:, 1].max() < 0.8, name
            assert np.abs(upper - lower)[3:6, 1].max() < 0.1, name


def test_eyes_and_surroundings_do_not_move(field):
    for name in ("happy", "angry", "surprised"):
        weights = Emotion(name).weights
        lids = moved(field, weights, [*LIDS["Left"][0], *LIDS["Right"][1]])
        assert np.linalg.norm(lids, axis=1).mean() < 0.7
        shift = field.shift(weights)
        assert not np.concatenate([shift[0], shift[-1], shift[:, 0], shift[:, -1]]).any()


def test_extreme_weights_do_not_fold_the_skin(field):
    rng = np.random.default_rng(0)
    for weights in (*np.eye(52), np.ones(52), *rng.random((10, 52)).round()):
        shift = field.shift(weights.astype(np.float32))
        if shift is not None:
            right, down = np.diff(shift[..., 0], axis=1), np.diff(shift[..., 1], axis=0)
            assert min(right.min(), down.min()) / CELL > -0.8


def test_expression_of_the_eyes_alone_moves_no_skin(field):
    assert field.shift(to_weights({"eyeBlinkLeft": 1, "eyeLookUpRight": 1})) is None
    assert field.shift(None) is None


def test_motion_follows_changed_weights(field):
    happy, sad = (Emotion(name).weights for name in ("happy", "sad"))
    first = field.shift(happy).copy()
    assert np.array_equal(field.shift(happy), first)
    assert np.abs(field.shift(sad) - first).max() > 0.5
    assert np.array_equal(field.shift(happy), first)


def test_face_without_depth_moves_similarly(field):
    rng = np.random.default_rng(0)
    points = rng.uniform(120, 280, (68, 2)).astype(np.float32)
    flat = ExpressionField(Face(Box(120, 110, 280, 290), points, 1.0, "ibug68"), FRAME, XY)
    weights = Emotion("happy").weights
    assert np.allclose(flat.shift(weights), field.shift(weights), atol=0.01)
