"""Captions on a real face."""

import cv2
import numpy as np
import pytest
from helpers.photo_face import BOX, FACE, PHOTO

from talkinghead.predict.compositing.mouth_region import Texture, find_mouth_region
from talkinghead.predict.compositing.occlusion import OcclusionGuard
from talkinghead.predict.compositing.overlays import find_overlay, remove_overlay, sample_box
from talkinghead.types import AVSpec

REGION = find_mouth_region(FACE, *PHOTO.shape[:2], AVSpec())


def with_caption(text, outline=3, colour=(255, 255, 255)):
    """Return the photo with a caption over the chin, and its mask."""
    image, mask = PHOTO.copy(), np.zeros(PHOTO.shape[:2], np.uint8)
    place = (180, 175), cv2.FONT_HERSHEY_DUPLEX, 0.55
    if outline:
        cv2.putText(image, text, *place, (0, 0, 0), outline, cv2.LINE_AA)
    cv2.putText(image, text, *place, colour, 1, cv2.LINE_AA)
    cv2.putText(mask, text, *place, 255, 1)
    return image, mask > 0


@pytest.mark.parametrize(
    ("outline", "colour"),
    [
        (0, (255, 255, 255)),
        (3, (255, 255, 255)),
        (3, (255, 240, 0)),
        (3, (0, 255, 255)),
        (3, (40, 255, 60)),
    ],
    ids=str,
)
def test_caption_is_found_and_stays_visible(outline, colour):
    image, mask = with_caption("LOREM IPSUM", outline, colour)
    assert find_overlay(sample_box(image, BOX)) is not None
    visibility = OcclusionGuard()(image, REGION, Texture(PHOTO, BOX), 0.0)
    strokes = REGION.crop(mask) & (REGION.radius < 0.9)
    assert visibility[strokes].mean() < 0.1
    # The caption is in the reference too.
    guard = OcclusionGuard()
    visibility = guard(image.copy(), REGION, Texture(image, BOX), 0.0)
    assert visibility[strokes].mean() < 0.1
    assert visibility[(REGION.radius < 1) & (REGION.box_xy[..., 1] < 0.35)].mean() > 0.9


def test_caption_is_removed_from_a_reference():
    image, mask = with_caption("LOREM IPSUM")
    mask &= np.hypot(*(np.indices(mask.shape) - np.reshape([160, 222], (2, 1, 1)))) < 30
    cleaned = remove_overlay(image, BOX)
    error, before = (np.abs(x[mask].astype(int) - PHOTO[mask]).mean() for x in (cleaned, image))
    assert error < 0.4 * before
    assert remove_overlay(PHOTO, BOX) is PHOTO


def test_faces_without_a_caption_have_none():
    collar = PHOTO.copy()
    cv2.fillPoly(
        collar, [np.int32([(175, 190), (222, 178), (270, 190), (270, 210), (175, 210)])], (250,) * 3
    )
    bright = np.minimum(PHOTO * 1.4 + 30, 255).astype(np.uint8)
    warm, green = (
        np.minimum(PHOTO * np.array(light), 255).astype(np.uint8)
        for light in ((1.2, 1.1, 0.6), (0.8, 1.2, 0.7))
    )
    for image in (PHOTO, collar, bright, warm, green, cv2.GaussianBlur(PHOTO, (0, 0), 3)):
        assert find_overlay(sample_box(image, BOX)) is None
