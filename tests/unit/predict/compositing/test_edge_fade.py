"""Fade of the mouth at the edge of the reference's face inside the face of a frame."""

from dataclasses import replace

import numpy as np
import pytest

from talkinghead.predict.compositing.edge_fade import edge_fade
from talkinghead.predict.compositing.mouth_region import find_mouth_region
from talkinghead.types import AVSpec

SKIN, HAIR = 150, 30
FACE = np.float32([[45, 20], [210, 20], [210, 235], [45, 235]])
"""Outline of the reference's face; its left edge is within the mouth region."""


def make_region(scale=1.0):
    transform = np.float32([[1 / scale, 0, 0], [0, 1 / scale, 0]])
    return find_mouth_region(transform, round(256 * scale), round(256 * scale), AVSpec())


def columns_of(region):
    return np.arange(region.columns.start, region.columns.stop) + 0 * region.radius


def make_mouth(region, left):
    """Return a mouth with skin from a column on, and hair to the left of it."""
    shade = np.where(columns_of(region) < left, HAIR, SKIN).astype(np.float32)
    return np.ascontiguousarray(np.repeat(shade[..., None], 3, 2))


@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_edge_of_the_reference_inside_the_face_is_hidden(scale):
    region = make_region(scale)
    x = columns_of(region) / scale
    left = x.min() + 18
    face = scale * (FACE - [45 - left, 0]).astype(np.float32)
    frame = np.full((*region.radius.shape, 3), SKIN, np.uint8)
    weight = edge_fade(make_mouth(region, scale * left), frame, region, face)
    middle = np.abs(region.box_xy[..., 1] - 0.5) < 0.1
    at_edge = middle & (np.abs(x - left) < 2) & (region.radius < 0.95)
    assert weight[at_edge].max() < 0.25
    assert weight[region.radius < 0.45].min() == 1
    # The weight changes gradually.
    assert np.abs(np.diff(weight, axis=1))[:, 1:-1].max() < 0.2 / min(scale, 1)


def test_mouth_that_agrees_with_the_frame_is_unchanged():
    region = make_region()
    left = columns_of(region).min() + 18
    mouth, face = make_mouth(region, left), (FACE - [45 - left, 0]).astype(np.float32)
    assert edge_fade(mouth, mouth.astype(np.uint8), region, face) is None
    slightly = np.clip(mouth + 20, 0, 255).astype(np.uint8)
    assert edge_fade(mouth, slightly, region, face) is None


def test_other_lips_and_another_chin_are_unchanged():
    region = make_region()
    frame = np.full((*region.radius.shape, 3), SKIN, np.uint8)
    mouth = frame.astype(np.float32)
    lips = region.radius < 0.45
    chin = np.abs(region.box_xy[..., 0] - 0.5) < 0.02
    mouth[lips | chin] = 20
    assert edge_fade(mouth, frame, region, FACE) is None


def test_difference_that_is_not_visible_does_not_count():
    region = make_region()
    left = columns_of(region).min() + 18
    face = (FACE - [45 - left, 0]).astype(np.float32)
    frame = np.full((*region.radius.shape, 3), SKIN, np.uint8)
    mouth = make_mouth(region, left)
    hidden = replace(region, visibility=np.zeros_like(region.radius))
    assert edge_fade(mouth, frame, hidden, face) is None
