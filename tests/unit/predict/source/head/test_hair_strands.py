"""Strands of hair outside the segmented head."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.data import astronaut

from talkinghead.features.faces.head_pose import fit_face_frame
from talkinghead.predict.source.head.hair_strands import find_strands
from talkinghead.predict.source.head.head_warp import HeadWarp

SIZE, PX_PER_CM = 200, 10.0
HEAD = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), (100, 100), 40, 1, -1)
WALL = np.full((SIZE, SIZE, 3), (150, 165, 180), np.uint8)
WEIGHT = np.ones((SIZE, SIZE), np.float32)
# A curved strand that begins at the head and ends 2 cm away from it.
STRAND = cv2.ellipse(np.zeros_like(HEAD), (72, 98), (30, 28), 0, 180, 270, 1, 2) * (1 - HEAD)


def found(strand_colour=(70, 45, 30), wall=WALL, mark=STRAND):
    image = np.where(HEAD[..., None] > 0, np.uint8([60, 35, 25]), wall)
    image[mark > 0] = strand_colour
    return find_strands(image, HEAD, WEIGHT, PX_PER_CM)


def test_strand_on_a_quiet_wall_belongs_to_the_head():
    opacity = found()
    assert opacity[STRAND > 0].mean() > 0.9
    beside = cv2.dilate(STRAND, np.ones((9, 9))) == 0
    assert opacity[beside].sum() < 0.1 * opacity.sum()


def test_lines_in_front_of_a_pattern_are_no_strands():
    stripes = WALL.copy()
    stripes[:, ::6] = (80, 60, 40)
    assert found(wall=stripes).max() == 0


def test_a_line_that_continues_beyond_the_hair_is_no_strand():
    shelf = np.zeros_like(HEAD)
    shelf[98:101] = 1
    assert found(mark=shelf * (1 - HEAD)).max() == 0


def test_a_line_lighter_than_the_wall_is_no_strand_of_dark_hair():
    assert found(strand_colour=(230, 240, 250)).max() == 0


def test_strands_do_not_stay_behind_when_the_head_turns(faces):
    photo, face = astronaut(), faces[0]
    line = np.zeros(photo.shape[:2], np.uint8)
    # It begins at the hair beside the temple.
    x, y = round(face.box.x0) - 15, round(face.box.y0) + 44
    cv2.ellipse(line, (x, y), (22, 25), 0, 180, 270, 1, 2)
    image = photo.copy()
    image[line > 0] = (80, 55, 35)
    turned = []
    for one in (photo, image):
        warp = HeadWarp(one, face, fit_face_frame(face), [])
        frame = one.copy()
        warp.draw(one, (-12, 0, 0), frame)
        turned.append(frame.astype(int))
    start = np.abs(np.subtract(image, photo, dtype=int)).max(2)[line > 0]
    left_behind = np.abs(np.subtract(*turned)).max(2)[line > 0]
    assert left_behind.mean() < 0.35 * start.mean()
