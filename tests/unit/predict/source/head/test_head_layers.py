"""Continuation of the background behind a head."""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.predict.source.head.head_layers import _reflect

SIZE, REACH = 120, 16.0
HIDDEN = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), (60, 60), 30, 1, -1)
GREY = np.full((SIZE, SIZE, 3), 120, np.uint8)


def reflected(image):
    return _reflect(image, image, GREY, HIDDEN, REACH)


def test_structured_background_is_continued():
    stripes = np.where(np.arange(SIZE) // 6 % 2, 200, 40).astype(np.uint8)
    image = np.repeat(np.tile(stripes[:, None], (1, SIZE))[..., None], 3, 2)
    result = reflected(image)
    distance = cv2.distanceTransform(HIDDEN, cv2.DIST_L2, 5)
    near, far = (distance > 2) & (distance < 6), distance > REACH + 2
    assert result[near].std() > 50
    assert np.array_equal(result[far], GREY[far])


def test_smooth_background_is_filled_by_inpainting():
    ramp = np.repeat(np.tile(np.linspace(80, 160, SIZE)[:, None], (1, SIZE))[..., None], 3, 2)
    assert np.array_equal(reflected(ramp.astype(np.uint8))[HIDDEN > 0], GREY[HIDDEN > 0])
