"""Blur of mouths in a blurred image of a real face."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from helpers.photo_face import BOX, FACE, PHOTO

from talkinghead.predict.compositing.mouth_region import (
    MouthBlur,
    Texture,
    find_mouth_region,
    paint_mouth,
)
from talkinghead.predict.compositing.sharpness import BlurMatcher
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.types import AVSpec

SPEC = AVSpec()


def blurred(sigma_px, image=PHOTO):
    return cv2.GaussianBlur(image, (0, 0), sigma_px) if sigma_px else image


def blur_of(image, reference, time_s=0.0, box=BOX):
    return BlurMatcher()(image, box, Texture(reference, box), time_s)


def enlarged(image, factor=3):
    box = BOX * factor
    box[:, 2] += (factor - 1) / 2
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), box


def test_sharp_face_is_not_blurred():
    noise = np.random.default_rng(0).normal(0, 6, PHOTO.shape)
    noisy = (PHOTO + noise).clip(0, 255).astype(np.uint8)
    for image in (PHOTO, PHOTO.copy(), noisy):
        assert blur_of(image, PHOTO) == MouthBlur()


@pytest.mark.parametrize("sigma_px", [3.0, 5.0])
def test_mouth_gets_the_blur_of_a_face_out_of_focus(sigma_px):
    image = blurred(sigma_px)
    blur = blur_of(image.copy(), image)
    assert blur.texture == (0, 0)
    assert 0.6 * sigma_px < min(blur.rgb) <= max(blur.rgb) < 1.5 * sigma_px


@pytest.mark.parametrize("axis", [0, 1])
def test_texture_gets_the_motion_blur_of_a_frame(axis):
    moved = cv2.blur(PHOTO, (1, 15) if axis else (15, 1))
    blur = blur_of(moved, PHOTO)
    assert 1.2 < blur.texture[axis] < 6
    assert blur.texture[1 - axis] < 0.7 * blur.texture[axis]
    large, box = enlarged(moved)
    photo, _ = enlarged(PHOTO)
    assert blur_of(large, photo, box=box).texture[axis] == pytest.approx(
        3 * blur.texture[axis], rel=0.25
    )


def test_face_without_edges_is_not_blurred():
    flat = np.full_like(PHOTO, 120)
    assert blur_of(flat, PHOTO) == blur_of(PHOTO, flat) == MouthBlur()


def test_blur_follows_a_change_of_focus_within_a_few_frames():
    matcher, texture = BlurMatcher(), Texture(PHOTO, BOX)
    shown = [PHOTO.copy(), *[blurred(4)] * 5]
    blurs = [
        matcher(image, BOX, texture, float(Fraction(number, 25))).texture[0]
        for number, image in enumerate(shown)
    ]
    assert blurs[0] == 0
    assert blurs[3] > 0.8 * blurs[5] > 1


def test_blur_softens_the_edge_of_the_rgb():
    size = SPEC.mouth_size
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    mask = ((abs(rows - 0.5) < 0.02) & (abs(columns - 0.5) < 0.2)).astype(np.float32)
    flow = np.zeros((size // 2, size // 2, 2), np.float32)
    fields = MouthFields(flow, np.zeros((size, size, 3), np.float32), mask)
    grey = np.full_like(PHOTO, 150)
    region = find_mouth_region(FACE, *grey.shape[:2], SPEC)
    darkest = [
        paint_mouth(fields, Texture(grey, BOX), region, MouthBlur(rgb=(sigma, sigma))).image.min()
        for sigma in (0, 2, 4)
    ]
    assert darkest[0] < 20
    assert darkest[0] + 15 < darkest[1] < darkest[2] - 15
