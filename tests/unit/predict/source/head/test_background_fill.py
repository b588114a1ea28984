"""Continuation of the background behind a head."""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.predict.source.head.background_fill import fill_background

SIZE, PX_PER_CM = 120, 4.0
HIDDEN = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), (60, 60), 30, 1, -1)
DISTANCE = cv2.distanceTransform(HIDDEN, cv2.DIST_L2, 5)


def filled(image):
    """Return an image whose hidden part was red before it is filled."""
    image = np.where(HIDDEN[..., None] > 0, np.array([255, 0, 0]), image).astype(np.uint8)
    return fill_background(image, image, HIDDEN, PX_PER_CM).astype(int)


def grey(values):
    return np.repeat(np.broadcast_to(values, (SIZE, SIZE))[..., None], 3, 2).astype(np.uint8)


def test_pattern_of_the_background_is_continued_near_its_edge():
    result = filled(grey(np.where(np.arange(SIZE)[:, None] // 3 % 2, 160, 90)))
    near, far = (DISTANCE > 2) & (DISTANCE < 6), DISTANCE > 26
    assert result[near].std() > 25
    assert result[far].std() < 5


def test_shading_of_a_wall_is_continued_without_a_step():
    wall = grey(np.linspace(80, 160, SIZE)[:, None])
    result = filled(wall)
    assert np.abs(np.diff(result, axis=0)).max() <= 6
    assert np.abs(result - wall)[(DISTANCE > 0) & (DISTANCE < 4)].max() <= 8


def test_an_object_beside_the_head_is_not_repeated():
    # The edge of a dark curtain, 2 cm from the hidden area.
    image = grey(np.where(np.arange(SIZE) < 22, 30, 180))
    assert filled(image)[DISTANCE > 2].min() > 165


def test_spots_do_not_change_the_colour_far_from_the_edge():
    # White spots of 2.5 cm, every 4.5 cm, on a dark background, such as the stars of a flag.
    rows, columns = np.mgrid[:SIZE, :SIZE]
    spots = (rows % 18 < 10) & (columns % 18 < 10)
    result = filled(grey(np.where(spots, 240, 40)))
    assert np.abs(result[DISTANCE > 8] - 40).max() < 40


def test_edges_of_objects_behind_the_head_are_continued():
    # The bright frame of a window, 1.5 cm wide, that the head hides at different angles.
    rows, columns = np.mgrid[:SIZE, :SIZE]
    is_frame = (np.abs(rows - 45) < 3) | (np.abs(columns - 80) < 3)
    image = grey(np.where(is_frame, 220, 60))
    result, ring = filled(image), (DISTANCE > 0) & (DISTANCE < 4)
    assert np.abs(result - image)[ring & is_frame].mean() < 55
    assert np.abs(result - image)[ring & (DISTANCE < 1.5)].mean() < 8
