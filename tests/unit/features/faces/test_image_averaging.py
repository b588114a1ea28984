"""A reference with less noise."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import astronaut

from talkinghead.features.faces.image_averaging import average_onto, nearest_lips

STILL = np.eye(2, 3, dtype=np.float32)


@pytest.fixture(scope="module")
def face():
    return astronaut()[40:200, 140:300]


def noisy(picture, seed):
    noise = np.random.default_rng(seed).normal(0, 5, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def error(picture, truth):
    return np.abs(picture[8:-8, 8:-8].astype(float) - truth[8:-8, 8:-8]).mean()


def test_noise_averages_out(face):
    averaged = average_onto(noisy(face, 0), [(noisy(face, i), STILL) for i in range(1, 8)])
    assert averaged.shape == face.shape
    assert averaged.dtype == np.uint8
    assert error(averaged, face) < 0.55 * error(noisy(face, 0), face)


def test_pictures_are_moved_onto_it(face):
    whole = astronaut()
    # Another part of the picture, whose transform says where it lies, two pixels off.
    transform = np.array([[1, 0, -15 + 2], [0, 1, -10]], np.float32)
    others = [(noisy(whole[30:210, 125:315], i), transform) for i in range(1, 8)]
    averaged = average_onto(noisy(face, 0), others)
    assert error(averaged, face) < 0.55 * error(noisy(face, 0), face)


def test_what_only_others_show_does_not_count(face):
    covered = face.copy()
    covered[60:110, 50:100] = (20, 160, 60)
    averaged = average_onto(face, [(covered, STILL)] * 7)
    assert error(averaged[70:100, 60:90], face[70:100, 60:90]) < 2


def test_a_tiny_picture_stays_as_it_is(face):
    tiny = face[:20, :40]
    assert average_onto(tiny, [(tiny, STILL)]) is tiny


def test_lips_that_lie_alike_come_nearest_first():
    lips = np.zeros((6, 20, 2), np.float32)
    lips[:, :, 1] = np.array([0, 1, np.nan, 0.5, 2, 0.2])[:, None]
    assert nearest_lips(lips, 0, 5, 1.5) == [5, 3, 1]
    assert nearest_lips(lips, 0, 2, 1.5) == [5, 3]
    assert nearest_lips(lips, 2, 5, 1.5) == []
