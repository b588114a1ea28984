"""Closed lips of references with an open mouth, at the resolution of the image."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from talkinghead.models.lipsync.lip_seam import close_sides
from talkinghead.models.lipsync.lip_warp import warp_lips
from talkinghead.models.lipsync.mouth_painting import grid_steps
from talkinghead.predict.compositing.mouth_region import (
    Texture,
    box_to_image,
    find_mouth_region,
    paint_mouth,
)
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.compositing.warp.lip_sides import is_open, lip_sides
from talkinghead.types import AVSpec

SPEC = AVSpec()
CENTRE_Y = 0.45
SKIN, TEETH = 80, 250


def make_lips(gap):
    """Return lips [20, 2] with a gap between level inner lips, in sides of the mouth box."""
    x = 0.5 + 0.2 * np.array([-1, -0.66, -0.33, 0, 0.33, 0.66, 1])
    y = CENTRE_Y + np.array([0, 1, 1, 1, 1, 1, 0]) * (gap / 2 + 0.06)
    upper = np.stack([x, 2 * CENTRE_Y - y], 1)
    lower = np.stack([x, y], 1)[5:0:-1]
    inner_x = 0.5 + 0.17 * np.array([-1, -0.4, 0, 0.4, 1])
    inner_y = gap / 2 * np.array([0, 1, 1, 1, 0])
    inner_upper = np.stack([inner_x, CENTRE_Y - inner_y], 1)
    inner_lower = np.stack([inner_x, CENTRE_Y + inner_y], 1)[3:0:-1]
    return np.concatenate([upper, lower, inner_upper, inner_lower]).astype(np.float32)


def make_fields(gap, shown):
    """Return fields that move lips with a gap so that `shown` of it stays visible."""
    steps = grid_steps(48, torch.device("cpu"))
    lips, moved = (torch.from_numpy(2 * make_lips(g) - 1)[None] for g in (gap, shown))
    warp = warp_lips(steps, lips, moved)
    sides = close_sides(steps, warp.sides, lips, moved)
    flow, sides = (0.5 * maps[0].permute(1, 2, 0).numpy() for maps in (warp.flow, sides))
    rgb, mask = np.zeros((96, 96, 3), np.float32), np.zeros((96, 96), np.float32)
    return MouthFields(flow, rgb, mask, sides, make_lips(shown))


def paint(fields, gap, scale):
    """Return the painted mouth, float32 [h, w], of a photo whose open mouth shows teeth."""
    size = round(256 * scale)
    transform = np.float32([[1 / scale, 0, 0], [0, 1 / scale, 0]])
    image = np.full((size, size, 3), SKIN, np.uint8)
    to_image = box_to_image(transform, SPEC)
    inner = make_lips(gap)[12:] @ to_image[:, :2].T + to_image[:, 2]
    cv2.fillPoly(image, [np.rint(inner).astype(np.int32)], (TEETH,) * 3)
    region = find_mouth_region(transform, size, size, SPEC, reduce=True)
    painted = paint_mouth(fields, Texture(image, to_image), region)
    return painted.image[..., 0] if painted.texture is None else painted.texture[..., 0]


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0, 6.0])
@pytest.mark.parametrize("gap", [0.05, 0.12])
def test_closed_lips_show_nothing_of_the_open_mouth(gap, scale):
    fields = make_fields(gap, shown=0)
    assert paint(replace(fields, sides=None), gap, scale).max() > SKIN + 60
    assert paint(fields, gap, scale).max() < SKIN + 20


def test_visible_teeth_grow_with_the_gap():
    gap, scale = 0.12, 2.0
    shown = np.linspace(0, gap, 7)
    painted = [paint(make_fields(gap, s), gap, scale) for s in shown]
    middle = [image[:, image.shape[1] // 2] > (SKIN + TEETH) / 2 for image in painted]
    heights = np.array([column.sum() for column in middle]) / (SPEC.mouth_side * scale)
    assert np.all(np.diff(heights) > 0)
    assert heights == pytest.approx(shown, abs=0.012)


@pytest.mark.parametrize(("gap", "expected"), [(0.0, False), (0.02, False), (0.04, True)])
def test_reference_is_open_above_the_gap_of_detected_closed_lips(gap, expected):
    assert is_open(make_lips(gap)) is expected


@pytest.mark.parametrize("shift", [(3, 0), (-3, 0), (0, 3), (0, -3)])
def test_lips_outside_the_box_have_no_seam_in_it(shift):
    grid = (np.arange(40, dtype=np.float32) + 0.5) / 40
    box_xy = np.stack(np.meshgrid(grid, grid), -1)
    is_lower, seam = lip_sides(make_lips(0.0) + np.float32(shift), box_xy, 100.0)
    assert seam.max() < 1e-3
    assert np.isfinite(is_lower).all()
