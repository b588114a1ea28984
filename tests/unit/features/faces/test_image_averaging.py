"""Noise reduction of reference images."""

import cv2
import numpy as np
import pytest

from talkinghead.features.faces.image_averaging import average_onto, nearest_lips

IDENTITY = np.eye(2, 3, dtype=np.float32)


@pytest.fixture(scope="module")
def face(astronaut):
    return astronaut[40:200, 140:300]


def add_noise(image, seed):
    noise = np.random.default_rng(seed).normal(0, 5, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def error(image, expected):
    return np.abs(image[8:-8, 8:-8].astype(float) - expected[8:-8, 8:-8]).mean()


def test_images_are_aligned_and_averaged(face, astronaut):
    # Another crop of the photo with a transform that is two pixels off.
    transform = np.array([[1, 0, -15 + 2], [0, 1, -10]], np.float32)
    others = [(add_noise(astronaut[30:210, 125:315], i), transform) for i in range(1, 8)]
    averaged = average_onto(add_noise(face, 0), others)
    assert (averaged.shape, averaged.dtype) == (face.shape, np.uint8)
    tiny = face[:20, :40]
    assert average_onto(tiny, others) is tiny
    assert error(averaged, face) < 0.55 * error(add_noise(face, 0), face)


@pytest.mark.parametrize("side", [640, 720])
def test_large_faces_are_aligned_by_the_flow_of_smaller_images(face, side):
    large = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    moved = cv2.remap(large, xs + 4 * np.sin(ys / 120), ys, cv2.INTER_CUBIC)
    averaged = average_onto(add_noise(large, 0), [(add_noise(moved, i), IDENTITY) for i in (1, 2)])
    assert error(averaged, large) < 0.75 * error(add_noise(large, 0), large)


def test_occlusions_in_other_images_are_ignored(face):
    covered = face.copy()
    covered[60:110, 50:100] = (20, 160, 60)
    averaged = average_onto(face, [(covered, IDENTITY)] * 7)
    assert error(averaged[70:100, 60:90], face[70:100, 60:90]) < 2


def test_nearest_lips_are_sorted_limited_and_finite():
    lips = np.zeros((6, 20, 2), np.float32)
    lips[:, :, 1] = np.array([0, 1, np.nan, 0.5, 2, 0.2])[:, None]
    assert nearest_lips(lips, 0, 5, 1.5) == [5, 3, 1]
    assert nearest_lips(lips, 0, 2, 1.5) == [5, 3]
    assert nearest_lips(lips, 2, 5, 1.5) == []
