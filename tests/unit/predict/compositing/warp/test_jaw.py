"""The chin of a photo follows the lower lip, and nothing else moves."""

import numpy as np
import pytest

from talkinghead.media.encoding.patched_image import PatchedImage
from talkinghead.predict.compositing.warp.jaw import JawWarp
from talkinghead.types import AVSpec

SPEC = AVSpec()
SCALE = 2.0
CENTRE_X, LOWER_LIP_Y = SPEC.mouth_x + SPEC.mouth_side / 2, SPEC.mouth_y + SPEC.mouth_side * 0.6
SIZE = 600


@pytest.fixture(scope="module")
def photo():
    """Horizontal stripes with a period of 40 pixels, which show vertical displacements."""
    rows = np.arange(SIZE)[:, None, None]
    stripes = 128 + 100 * np.sin(2 * np.pi * rows / 40)
    return np.broadcast_to(stripes, (SIZE, SIZE, 3)).astype(np.uint8).copy()


@pytest.fixture(scope="module")
def jaw():
    lips = np.tile(np.float32([CENTRE_X, LOWER_LIP_Y - 10]), (20, 1))
    lips[:, 0] += np.linspace(-20, 20, 20)
    lips[7:10] = [[CENTRE_X - 5, LOWER_LIP_Y], [CENTRE_X, LOWER_LIP_Y], [CENTRE_X + 5, LOWER_LIP_Y]]
    transform = np.float32([[1 / SCALE, 0, 0], [0, 1 / SCALE, 0]])
    return JawWarp(transform, lips * SCALE, SPEC, SIZE, SIZE)


def flow_of(drop_px):
    """Return the flow of a mouth whose pixels all come from `drop_px` above."""
    flow = np.zeros((48, 48, 2), np.float32)
    flow[..., 1] = -drop_px / SPEC.mouth_side
    return flow


def displacement(photo, moved, row, column):
    """Return the vertical displacement of the stripes around a pixel, in pixels."""
    near = slice(row - 20, row + 20)
    shifts = np.arange(-15, 16)
    errors = [np.abs(moved[near, column, 0] - np.roll(photo, shift, 0)[near, column, 0].astype(int))
              for shift in shifts]  # fmt: skip
    return int(shifts[np.argmin([error.mean() for error in errors])])


@pytest.mark.parametrize("drop_px", [10, -6])
def test_chin_moves_with_the_lower_lip(photo, jaw, drop_px):
    moved = jaw(PatchedImage(photo), flow_of(drop_px)).to_array()
    chin_row, column = round(SCALE * (LOWER_LIP_Y + 38)), round(SCALE * CENTRE_X)
    assert displacement(photo, moved, chin_row, column) == pytest.approx(
        0.6 * SCALE * drop_px, abs=1.5
    )


def test_only_the_region_of_the_chin_changes(photo, jaw):
    moved = jaw(PatchedImage(photo), flow_of(10)).to_array()
    changed = np.argwhere((moved != photo).any(-1)) / SCALE
    assert changed[:, 0].min() >= LOWER_LIP_Y
    assert changed[:, 0].max() <= LOWER_LIP_Y + 93
    assert np.abs(changed[:, 1] - CENTRE_X).max() <= 91
    # No seam: the displacement fades at every edge of the region.
    edge = photo.astype(int) - moved
    assert np.abs(np.diff(edge[..., 0], axis=1)).max() < 25


def test_still_lips_do_not_change_the_photo(photo, jaw):
    image = PatchedImage(photo)
    assert jaw(image, flow_of(0)) is image
