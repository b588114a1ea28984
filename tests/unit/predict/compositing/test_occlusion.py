"""Occlusions of a real face."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from helpers.photo_face import BOX, FACE, PHOTO

from talkinghead.predict.compositing.mouth_region import Texture, find_mouth_region
from talkinghead.predict.compositing.occlusion import OcclusionGuard
from talkinghead.types import AVSpec

SPEC = AVSpec()
REGION = find_mouth_region(FACE, *PHOTO.shape[:2], SPEC)
INSIDE = REGION.radius < 1
BLUE = np.array([60, 80, 160])


def visible(guard, image, time_s=0.04, region=REGION, reference=PHOTO):
    """Return the visibility of the region, ones where the guard returns None."""
    result = guard(image, region, Texture(reference, BOX), time_s)
    return np.ones(region.radius.shape) if result is None else result


def at(x, y):
    """Return the pixel (x, y) of a position in box units."""
    return tuple(int(v) for v in BOX[:, :2] @ [x, y] + BOX[:, 2])


def with_microphone(colour):
    """Return the photo with a microphone in front of the mouth, and its mask in the region."""
    mask = np.zeros(PHOTO.shape[:2], np.uint8)
    cv2.circle(mask, at(0.5, 0.5), round(0.25 * REGION.side_px), 255, -1)
    cv2.line(mask, at(0.5, 0.5), at(1.5, 0.5), 255, round(0.16 * REGION.side_px))
    rough = np.random.default_rng(0).normal(0, 6, (*mask.shape, 1)) + colour
    covered = np.where(mask[..., None] > 0, rough, PHOTO).clip(0, 255).astype(np.uint8)
    return covered, INSIDE & (REGION.crop(mask) > 0)


def shaded(image):
    """Return the image with half of the face in a soft shadow."""
    x = np.arange(image.shape[1])[None, :, None]
    light = 1 - 0.4 / (1 + np.exp(-(x - at(0.5, 0.5)[0]) / 4.0))
    return (image * light).astype(np.uint8)


def open_mouth(image):
    """Return the image with an open mouth, a tongue and a lower chin."""
    lower = image.copy()
    (left, top), (right, bottom) = at(0.1, 0.5), at(0.9, 0.95)
    lower[top + 7 : bottom + 7, left:right] = image[top:bottom, left:right]
    cv2.ellipse(lower, at(0.5, 0.5), (14, 9), 0, 0, 360, (40, 15, 15), -1)
    cv2.ellipse(lower, at(0.5, 0.55), (8, 3), 0, 0, 360, (170, 80, 80), -1)
    return lower


def noisy_and_darker(image):
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    return (0.7 * image + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("colour", [(25, 25, 27), (60, 80, 160), (200, 30, 40)], ids=str)
@pytest.mark.parametrize("light", [np.copy, shaded])
def test_microphone_is_detected(colour, light):
    image, covered = with_microphone(colour)
    visibility = visible(OcclusionGuard(), light(image))
    assert visibility[covered & (REGION.box_xy[..., 1] < 0.6)].mean() < 0.1
    assert visibility[INSIDE & ~covered].mean() > 0.55


def test_face_and_light_are_not_detected_as_occlusions():
    for change in (shaded, open_mouth, noisy_and_darker):
        assert visible(OcclusionGuard(), change(PHOTO)).all()
    beard = PHOTO.copy()
    for x in np.linspace(0.15, 0.85, 200):
        cv2.line(beard, at(x, 0.62), at(x, 0.95 - 0.9 * (x - 0.5) ** 2), (60, 42, 33), 1)
    assert visible(OcclusionGuard(), open_mouth(beard), reference=beard).all()
    # Tracking errors of a few pixels are not occlusions.
    for x, y in ((-2, 4), (4, -3)):
        transform = FACE + np.float32([[0, 0, x], [0, 0, y]])
        region = find_mouth_region(transform, *PHOTO.shape[:2], SPEC)
        assert visible(OcclusionGuard(), PHOTO.copy(), region=region).all()
    photo, _ = with_microphone(BLUE)
    assert OcclusionGuard()(photo, REGION, Texture(photo, BOX), 0.0) is None


def test_occlusion_takes_effect_at_once_and_fades_out():
    image, covered = with_microphone(BLUE)
    guard, levels = OcclusionGuard(), []
    for frame in range(20):
        shown = image if 3 <= frame < 6 else PHOTO.copy()
        levels.append(visible(guard, shown, frame / 25)[covered].mean())
    assert levels[:3] == [1, 1, 1]
    assert max(levels[3:6]) < 0.1
    assert all(before <= after for before, after in pairwise(levels[5:]))
    assert levels[6] < 0.5
    assert levels[-1] == 1


def test_hysteresis_keeps_an_occlusion_whose_colour_approaches_the_face():
    skin = PHOTO[at(0.2, 0.25)[::-1]]
    mixtures = (
        with_microphone(weight * BLUE + (1 - weight) * skin)[0] for weight in np.linspace(1, 0, 21)
    )
    undetected = next(image for image in mixtures if visible(OcclusionGuard(), image).all())
    strong, covered = with_microphone(BLUE)
    guard = OcclusionGuard()
    visible(guard, strong, 0.04)
    assert visible(guard, undetected, 1.0)[covered].mean() < 0.5


def test_slow_change_of_light_is_not_an_occlusion():
    guard = OcclusionGuard()
    for frame in range(100):
        warmer = (PHOTO * np.float32([1, 1, 1 - 0.003 * frame])).astype(np.uint8)
        assert visible(guard, warmer, frame / 5).all()
    assert not visible(OcclusionGuard(), warmer).all()


@pytest.mark.parametrize("time_s", [0.0, 10.0])
def test_reset_clears_occlusions_and_the_light_of_the_shot(time_s):
    guard = OcclusionGuard()
    visible(guard, PHOTO.copy(), 4.9)
    visible(guard, with_microphone(BLUE)[0], 5.0)
    guard.reset()
    assert visible(guard, PHOTO.copy(), time_s).all()
    guard.reset()
    warmer = (PHOTO * np.float32([1, 1, 0.7])).astype(np.uint8)
    assert not visible(guard, warmer, time_s).all()
