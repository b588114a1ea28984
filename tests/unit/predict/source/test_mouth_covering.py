"""Covered and uncovered mouths of a real face."""

import cv2
import numpy as np
import pytest
from helpers.photo_face import FACE, PHOTO

from talkinghead.predict.source.mouth_covering import measure_visibility
from talkinghead.types import AVSpec

# Lips of the photo, computed by `lip_points`.
LIPS = np.float32(
    [
        *[(203, 147), (210, 142), (217, 139), (222, 140), (227, 139), (234, 142), (242, 147)],
        *[(235, 155), (229, 158), (222, 159), (216, 158), (209, 154)],
        *[(206, 147), (216, 144), (222, 144), (228, 144), (239, 147)],
        *[(228, 152), (222, 152), (216, 152)],
    ]
)
INVERSE = cv2.invertAffineTransform(FACE)


def visibility(image):
    return measure_visibility(image, FACE, LIPS, AVSpec())


def at(x, y):
    """Return the pixel of a position in the canonical face."""
    return INVERSE[:, :2] @ [x, y] + INVERSE[:, 2]


def with_mask(colour, shading=0.0):
    """Return the photo with a medical mask, whose brightness increases to the right."""
    corners = [(50, 105), (128, 92), (206, 105), (200, 190), (128, 256), (56, 190)]
    polygon = np.rint([at(*corner) for corner in corners]).astype(np.int32)
    mask = cv2.fillPoly(np.zeros(PHOTO.shape[:2], np.uint8), [polygon], 1)[..., None]
    light = 1 + shading * (np.arange(PHOTO.shape[1])[:, None] - 222) / 40
    noise = np.random.default_rng(0).normal(0, 3, PHOTO.shape)
    cloth = np.asarray(colour) * light + noise
    return np.where(mask, cloth, PHOTO).clip(0, 255).astype(np.uint8)


def with_beard(colour):
    beard = PHOTO.copy()
    lips = cv2.fillPoly(np.zeros(PHOTO.shape[:2], np.uint8), [LIPS[:12].astype(np.int32)], 1)
    rng = np.random.default_rng(0)
    for x in np.linspace(60, 196, 400):
        top = np.array(at(x + rng.normal(0, 3), 140 + 30 * (abs(x - 128) > 50)))
        end = top + np.array([rng.normal(0, 4), 60])
        cv2.line(beard, top.astype(int).tolist(), end.astype(int).tolist(), colour, 1)
    return np.where(lips[..., None] > 0, PHOTO, beard)


@pytest.mark.parametrize(
    "colour", [(130, 180, 215), (235, 238, 240), (30, 30, 34), (110, 160, 130)], ids=str
)
@pytest.mark.parametrize("shading", [0.0, 0.25])
def test_mask_is_recognised(colour, shading):
    seen = visibility(with_mask(colour, shading))
    assert seen.is_covered
    assert seen.covering > visibility(PHOTO).covering + 0.2


@pytest.mark.parametrize(
    "colour", [(140, 180, 215), (235, 238, 240), (30, 30, 34), (110, 160, 130)], ids=str
)
@pytest.mark.parametrize("shift_px", [(-8, 18), (0, 22)], ids=str)
def test_mask_is_recognised_if_the_landmarks_are_at_its_edge(colour, shift_px):
    """In front of a mask, landmarks drift downwards, and the lips seem to be on its edge."""
    corners = np.int32([(189, 118), (222, 110), (257, 118), (253, 160), (222, 184), (193, 160)])
    image = cv2.fillPoly(PHOTO.copy(), [corners], colour, cv2.LINE_AA)
    face = FACE.copy()
    face[:, 2] -= 0.6 * FACE[:, :2] @ shift_px
    lips = (LIPS + shift_px).astype(np.float32)
    assert measure_visibility(image, face, lips, AVSpec()).is_covered


@pytest.mark.parametrize("shading", [0.0, 0.25])
@pytest.mark.parametrize("change", [1.0, 0.4], ids=["bright", "dark"])
def test_mask_of_the_colour_of_the_skin_is_recognised(shading, change):
    skin = np.median(PHOTO[125:135, 195:205].reshape(-1, 3), axis=0)
    image = (change * cv2.GaussianBlur(with_mask(skin, shading), (0, 0), 0.7)).astype(np.uint8)
    assert visibility(image).is_covered


@pytest.mark.parametrize(
    "colour", [(60, 42, 33), (25, 22, 20), (150, 145, 140), (150, 85, 45)], ids=str
)
@pytest.mark.parametrize("is_open", [False, True], ids=["smile", "open"])
def test_beard_is_not_recognised_as_a_mask(colour, is_open):
    image = with_beard(colour)
    if is_open:
        interior = LIPS[12:].astype(np.int32)
        interior[5:, 1] += 3
        cv2.fillPoly(image, [interior], (45, 25, 22))
    assert not visibility(image).is_covered


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image * 0.35,
        lambda image: image * 0.1,
        lambda image: image * np.array([0.55, 0.45, 0.4]),
        lambda image: image * np.array([0.6, 0.7, 1.2]),
        lambda image: np.repeat(image.mean(-1, keepdims=True), 3, -1),
        lambda image: cv2.GaussianBlur(image, (0, 0), 4),
        lambda image: cv2.GaussianBlur(image, (0, 0), 7),
        lambda image: 128 + 0.4 * (image - 128.0),
    ],
    ids=["dark", "darker", "brown", "blue light", "grey", "blurred", "more blurred", "pale"],
)
def test_uncovered_mouths_of_many_kinds_are_not_covered(change):
    assert not visibility(np.clip(change(PHOTO), 0, 255).astype(np.uint8)).is_covered


def test_pale_lips_above_dark_clothes_are_not_covered():
    # As in some paintings: lips with the colour of the skin, and clothes near the mouth.
    face = PHOTO.copy()
    lower, clothes = [(40, 132), (216, 132), (216, 256), (40, 256)], [(40, 180), (216, 180)]
    for corners, colour in ((lower, (200, 150, 120)), (clothes + lower[2:], (40, 30, 60))):
        cv2.fillPoly(face, [np.rint([at(*xy) for xy in corners]).astype(np.int32)], colour)
    face[147:149, 208:237] = (110, 80, 65)
    assert not visibility(face).is_covered


def test_microphone_increases_the_covering_and_darkness_reduces_the_contrast():
    microphone = PHOTO.copy()
    cv2.circle(microphone, np.rint(at(80, 180)).astype(int).tolist(), 16, (60, 60, 62), -1)
    seen, clear = visibility(microphone), visibility(PHOTO)
    assert seen.covering > clear.covering + 0.03
    assert visibility((0.25 * PHOTO).astype(np.uint8)).contrast < 0.3 * clear.contrast
    assert visibility(cv2.GaussianBlur(PHOTO, (0, 0), 3)).contrast < 0.7 * clear.contrast
