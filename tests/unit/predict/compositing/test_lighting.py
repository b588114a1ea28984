"""Changes of the light on a real face."""

import cv2
import numpy as np
import pytest
from helpers.photo_face import BOX, FACE, PHOTO

from talkinghead.predict.compositing.lighting import LightMatcher
from talkinghead.predict.compositing.mouth_region import Texture, find_mouth_region
from talkinghead.types import AVSpec

REGION = find_mouth_region(FACE, *PHOTO.shape[:2], AVSpec())
MOUTH = REGION.crop(PHOTO).astype(np.float32)


def levels(values):
    return np.rint(values).clip(0, 255).astype(np.uint8)


def desaturated(image):
    return levels(0.3 * image + 0.7 * image.mean(-1, keepdims=True))


def lit_from_the_side(image):
    x = (np.arange(image.shape[1]) - 220) / 100
    return levels(image * (0.75 * np.exp(0.5 * x))[:, None])


def shadowed(image):
    """Return an image with a shadow that ends at the nose."""
    x = np.arange(image.shape[1]) - 225
    return levels(image * (0.7 + 0.3 * np.tanh(x / 4))[:, None])


def banded(image):
    """Return an image with the bands of a rolling shutter below a flickering lamp."""
    y = np.arange(image.shape[0])
    return levels(image * (1 + 0.3 * np.sin(y / 16))[:, None, None])


CHANGES = {
    "fade from black": lambda image: levels(0.15 * image),
    "fade from white": lambda image: levels(0.5 * image + 127),
    "lamp": lambda image: levels(1.3 * image),
    "red light": lambda image: levels(image * np.array([1.1, 0.5, 0.5])),
    "exposure": lambda image: levels(255 * (image / 255) ** 0.6),
    "desaturation": desaturated,
    "side": lit_from_the_side,
}
LOCAL_CHANGES = {"shadow": shadowed, "bands": banded}


def relit(image, reference=PHOTO):
    """Return the mouth of the reference in the light of an image."""
    light = LightMatcher()(image, BOX, Texture(reference, BOX))
    return MOUTH if light is None else light.apply(MOUTH, REGION.box_xy)


def mean_errors(change, covered):
    """Return the mean errors of the relit mouth and of the unchanged mouth, in levels."""
    image = change(PHOTO)
    expected = REGION.crop(image).astype(np.float32)
    if covered:
        mouth = tuple(int(v) for v in BOX[:, :2] @ [0.5, 0.5] + BOX[:, 2])
        cv2.circle(image, mouth, round(0.3 * REGION.side_px), (60, 80, 160), -1)
    inside = REGION.radius < 1
    error = np.abs(relit(image) - expected)[inside].mean()
    return error, np.abs(MOUTH - expected)[inside].mean()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("covered", [False, True], ids=["free", "covered"])
def test_reference_gets_the_light_of_the_frame(change, covered):
    error, before = mean_errors(change, covered)
    assert error < max(0.25 * before, 3)


@pytest.mark.parametrize("change", LOCAL_CHANGES.values(), ids=LOCAL_CHANGES)
@pytest.mark.parametrize("covered", [False, True], ids=["free", "covered"])
def test_reference_gets_light_with_borders(change, covered):
    error, before = mean_errors(change, covered)
    assert error < 0.45 * before


def test_dark_object_is_not_local_light():
    image = levels(1.2 * PHOTO)
    mouth = tuple(int(v) for v in BOX[:, :2] @ [0.5, 0.6] + BOX[:, 2])
    cv2.circle(image, mouth, round(0.35 * REGION.side_px), (30, 30, 34), -1)
    light = LightMatcher()(image, BOX, Texture(PHOTO, BOX))
    assert light is not None
    assert light.local is None or np.abs(light.local).max() < 0.1


def test_same_light_changes_nothing():
    noise = np.random.default_rng(0).normal(0, 5, PHOTO.shape)
    shifted = np.roll(PHOTO, (2, -3), axis=(0, 1))
    turned = cv2.warpAffine(PHOTO, np.float32([[0.94, 0, 12], [0, 1, 0]]), PHOTO.shape[1::-1])
    for image in (PHOTO, PHOTO.copy(), levels(PHOTO + noise), shifted, turned):
        assert np.abs(relit(image) - MOUTH).mean() < 1.5


def test_light_of_a_black_frame_is_finite():
    mouth = relit(np.zeros_like(PHOTO))
    assert np.isfinite(mouth).all()
    assert np.abs(mouth).max() < 8
