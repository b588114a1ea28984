"""Lids and irises of a real photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from talkinghead.features.faces.head_pose import fit_face_frame
from talkinghead.predict.source.head.expression.blendshapes import LIDS, to_weights
from talkinghead.predict.source.head.expression.eyes import Eyes, look
from talkinghead.predict.source.head.expression.irises import find_iris

# The face fills the image, so that a pixel is a small part of the eye.
PHOTO = cv2.resize(astronaut()[40:200, 140:300], None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
NONE = to_weights({})


@pytest.fixture(scope="module")
def face(detector):
    return detector.detect(PHOTO)[0]


@pytest.fixture(scope="module")
def eyes(face):
    return Eyes(PHOTO, face, fit_face_frame(face).scale)


def drawn(eyes, weights, blink=0.0):
    image = PHOTO.copy()
    eyes.draw(image, weights, blink)
    return image


def iris_x(image, face, side):
    """Return the position of the iris along the eye, relative to its width."""
    iris = find_iris(image, face.points, side, fit_face_frame(face).scale)
    return iris.centre[0] / iris.width


def white(image, face):
    """Return the contrast in the open eyes, which the white of the eyes increases."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    values = []
    for lids in LIDS.values():
        outline = np.rint(face.points[[*lids[0], *lids[1][::-1]]]).astype(np.int32)
        mask = cv2.fillPoly(np.zeros(grey.shape, np.uint8), [outline], 1) > 0
        values.append(grey[mask].std())
    return float(np.mean(values))


def test_gaze_moves_the_irises_to_the_requested_side(eyes, face):
    for side in LIDS:
        positions = [
            iris_x(drawn(eyes, look(angle, 0)), face, side) for angle in (-12, -6, 0, 6, 12)
        ]
        assert (np.diff(positions) > 0).all()
        assert positions[-1] - positions[0] > 0.12


def test_gaze_changes_the_open_eyes_only(eyes, face):
    changed = np.abs(drawn(eyes, look(10, 0)).astype(int) - PHOTO).max(-1) > 3
    outside = changed.copy()
    for lids in LIDS.values():
        hull = cv2.convexHull(np.rint(face.points[np.concatenate(lids)]).astype(np.int32))
        inside = cv2.fillConvexPoly(np.zeros(changed.shape, np.uint8), hull, 1)
        outside &= cv2.dilate(inside, np.ones((3, 3))) == 0
    assert changed.sum() > 200
    assert not outside.any()


def test_blendshapes_and_blinks_close_the_eyes(eyes, face):
    half = to_weights({"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5})
    closed = to_weights({"eyeBlinkLeft": 1, "eyeBlinkRight": 1})
    values = [white(drawn(eyes, weights), face) for weights in (NONE, half, closed)]
    assert values[2] < 0.6 * values[0]
    assert values[1] < 0.95 * values[0]
    assert np.array_equal(drawn(eyes, NONE, 1.0), drawn(eyes, closed))


def test_one_eye_winks(eyes, face):
    change = np.abs(drawn(eyes, to_weights({"eyeBlinkLeft": 1})).astype(int) - PHOTO).sum(-1)
    middle = round(float(face.points[168, 0]))
    assert change[:, middle:].sum() > 10_000
    assert not change[:, :middle].any()


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 0.0), (0.5, 0.15), (1.0, 0.3)])
def test_wide_eyes_raise_the_upper_lid(eyes, face, weight, expected):
    image = drawn(eyes, to_weights({"eyeWideLeft": weight, "eyeWideRight": weight}))
    for upper, lower in LIDS.values():
        (x, y), height = face.points[upper[4]], face.points[lower[4], 1] - face.points[upper[4], 1]
        columns = slice(round(x) - 3, round(x) + 4)

        def profile(source, y, columns=columns):
            rows = np.arange(-6, 3) + y
            grey = source[:, columns].mean((1, 2))
            return np.interp(rows, np.arange(len(grey)), grey)

        shifts = np.arange(0, 0.5 * height, 0.25)
        errors = [np.abs(profile(image, y - s) - profile(PHOTO, y)).mean() for s in shifts]
        assert shifts[np.argmin(errors)] / height == pytest.approx(expected, abs=0.06)


def test_eyes_are_unchanged_without_weights(eyes):
    assert not eyes.moves(NONE, 0.0)
    assert np.array_equal(drawn(eyes, NONE), PHOTO)


def test_hidden_iris_is_not_moved(face):
    dark = PHOTO.copy()
    outline = np.concatenate([np.rint(face.points[np.concatenate(lids)]) for lids in LIDS.values()])
    low, high = outline.min(0).astype(int) - 8, outline.max(0).astype(int) + 8
    dark[low[1] : high[1], low[0] : high[0]] = 20  # Dark glasses.
    glasses = Eyes(dark, face, fit_face_frame(face).scale)
    image = dark.copy()
    glasses.draw(image, look(10, 0), 0.0)
    assert np.array_equal(image, dark)
