"""Opacity of a head at its edge."""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.predict.source.head.head_layers import _matte

SIZE, PX_PER_CM = 120, 4.0
HEAD = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), (60, 60), 30, 1, -1)
# The segmented mask is larger than the head, and the hidden area is larger still.
MASK, HIDDEN = (cv2.circle(np.zeros_like(HEAD), (60, 60), radius, 1, -1) for radius in (32, 40))
WALL = np.repeat(np.tile(np.linspace(150, 185, SIZE), (SIZE, 1))[..., None], 3, 2)
RIM = (HIDDEN > 0) & (cv2.dilate(HEAD, np.ones((7, 7))) == 0)


def opacity(colour):
    image = np.where(HEAD[..., None] > 0, np.array(colour), WALL).astype(np.uint8)
    return image, _matte(image, HIDDEN, MASK, PX_PER_CM)


def test_background_at_the_edge_is_transparent():
    _, matte = opacity([60, 30, 20])
    assert matte[RIM].max() < 0.15
    assert matte[HEAD > 0].min() > 0.9


def test_edge_of_a_head_like_the_background_is_opaque():
    _, matte = opacity([170, 160, 150])
    assert matte[RIM].min() > 0.9


def test_strands_of_another_colour_are_opaque():
    image, _ = opacity([60, 30, 20])
    strands = RIM & (np.arange(SIZE) % 8 < 2)
    image[strands] = [250, 120, 0]
    assert np.median(_matte(image, HIDDEN, MASK, PX_PER_CM)[strands]) > 0.9


def test_objects_behind_the_edge_of_a_head_are_transparent():
    image, _ = opacity([60, 30, 20])
    # The bright frame of a window behind the head.
    bar = (np.abs(np.arange(SIZE) - 45) < 4)[:, None] & (HEAD == 0)
    image[bar] = [240, 235, 200]
    assert _matte(image, HIDDEN, MASK, PX_PER_CM)[RIM & bar].mean() < 0.35
