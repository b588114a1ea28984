"""Refinement of inner lips by the colours of the image."""

import cv2
import numpy as np
import pytest

from talkinghead.predict.source.inner_lips import refine_inner_lips

SKIN, LIP, DARK, TEETH = (200, 150, 130), (170, 60, 70), (40, 15, 15), (225, 220, 205)
INNER = np.arange(12, 20)


def mouth_points(gap, centre=(100, 100), width=90, thickness=16):
    """Return lip points of a symmetric mouth."""
    x = centre[0] + width / 2 * np.array([-1, -0.66, -0.33, 0, 0.33, 0.66, 1])
    arch = 1 - ((x - centre[0]) / (width / 2)) ** 2
    outer_y = (gap / 2 + thickness) * arch
    outer = [(a, centre[1] - b) for a, b in zip(x, outer_y, strict=True)]
    outer += [(a, centre[1] + b) for a, b in zip(x[5:0:-1], outer_y[5:0:-1], strict=True)]
    inner_x = centre[0] + 0.9 * (x[[0, 2, 3, 4, 6]] - centre[0])
    inner_y = gap / 2 * np.array([0, 0.9, 1, 0.9, 0])
    inner = [(a, centre[1] - b) for a, b in zip(inner_x, inner_y, strict=True)]
    inner += [(a, centre[1] + b) for a, b in zip(inner_x[3:0:-1], inner_y[3:0:-1], strict=True)]
    return np.float32(outer + inner)


def draw(points, interior=DARK, lip=LIP):
    image = np.full((200, 200, 3), SKIN, np.uint8)
    for part, colour in ((points[:12], lip), (points[12:], interior)):
        cv2.fillPoly(image, [np.rint(8 * part).astype(np.int32)], colour, cv2.LINE_AA, 3)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


@pytest.mark.parametrize("interior", [DARK, TEETH])
@pytest.mark.parametrize("error_px", [6, -4])
def test_points_move_to_the_edge_of_the_lip(interior, error_px):
    points = mouth_points(gap=24)
    detected = points.copy()
    detected[17:20, 1] += error_px
    refined = refine_inner_lips(draw(points, interior), detected)
    assert np.abs(refined - points).max() < 1.5
    assert np.array_equal(refined[:13], detected[:13])


@pytest.mark.parametrize("scale", [0.4, 3])
def test_result_does_not_depend_on_the_resolution(scale):
    points = mouth_points(gap=24)
    detected = points.copy()
    detected[17:20, 1] += 6
    size = (round(200 * scale),) * 2
    image = cv2.resize(draw(points), size, interpolation=cv2.INTER_AREA)
    place = np.float32((scale - 1) / 2)
    refined = refine_inner_lips(image, detected * np.float32(scale) + place)
    assert np.abs((refined - place) / scale - points).max() < 2


@pytest.mark.parametrize("image", ["grey", "closed", "lip colour inside"])
def test_points_without_an_edge_are_unchanged(image):
    points = mouth_points(gap=0 if image == "closed" else 24)
    picture = draw(points, LIP if image == "lip colour inside" else DARK)
    if image == "grey":
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    detected = points + np.float32([0, 3]) * (np.arange(20) >= 17)[:, None]
    if image == "closed":
        detected = points
    assert np.array_equal(refine_inner_lips(picture, detected), detected)


def test_mouth_at_the_border_or_of_no_size_is_unchanged():
    image = np.full((60, 60, 3), SKIN, np.uint8)
    outside = mouth_points(gap=24, centre=(58, 58))
    assert np.array_equal(refine_inner_lips(image, outside), outside)
    point = np.full((20, 2), 30, np.float32)
    assert np.array_equal(refine_inner_lips(image, point), point)
    far = mouth_points(gap=24, centre=(500, 500))
    assert np.array_equal(refine_inner_lips(image, far), far)
