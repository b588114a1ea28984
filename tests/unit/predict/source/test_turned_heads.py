"""A head that has turned since its reference: what is beside it is not painted over."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from talkinghead.predict.compositing.compositor import Compositor
from talkinghead.predict.compositing.mouth_region import find_mouth_region
from talkinghead.predict.compositing.renderers import FeatherRenderer
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.mouth_generator import GeneratedFrame
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.types import AVSpec

SPEC = AVSpec()
TRANSFORM = np.float32([[1, 0, 0], [0, 1, 0]])
PICTURE = np.full((256, 256, 3), 120, np.uint8)
REGION = find_mouth_region(TRANSFORM, 256, 256, SPEC)
OUTLINE = np.float32([[40, 20], [125, 20], [125, 250], [40, 250]])
"""The face ends at column 125, and at 128 is the middle of the mouth."""
COLUMNS = np.arange(REGION.columns.start, REGION.columns.stop) + 0 * REGION.radius
MIDDLE = np.hypot(*(REGION.box_xy - [0.5, 0.62]).transpose(2, 0, 1)) < 0.15


def composite(degrees, outline=OUTLINE):
    """What is added to each of the region's pixels where a head has turned so far: a white disc."""
    size = SPEC.mouth_size
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    disc = (np.hypot(columns - 0.5, rows - 0.62) < 0.2).astype(np.float32)
    fields = MouthFields(
        flow=np.zeros((size // 2, size // 2, 2), np.float32),
        rgb=np.ones((size, size, 3), np.float32),
        mask=disc,
    )
    frame = SourceFrame(
        PICTURE,
        time_s=Fraction(0),
        duration_s=Fraction(1, 25),
        transform=TRANSFORM,
        reference=Reference(
            PICTURE, TRANSFORM, np.zeros((20, 2), np.float32), np.zeros(3, np.float32)
        ),
        pose=None if degrees is None else np.float32([degrees, 0, 0]),
        outline=outline,
    )
    compositor = Compositor(FeatherRenderer(), SPEC, stabilise=False)
    image, _ = compositor.composite(GeneratedFrame(frame, fields))
    return REGION.crop(image)[..., 0].astype(int) - 120


@pytest.mark.parametrize("degrees", [-45, 20, 45])
def test_beside_a_turned_head_the_picture_stays(degrees):
    changed = composite(degrees)
    assert not changed[COLUMNS > 140].any()
    assert changed[MIDDLE & (COLUMNS < 125)].min() > 60


@pytest.mark.parametrize("degrees", [0, 5, -5, None, np.nan])
def test_a_head_that_has_not_turned_is_painted_whole(degrees):
    changed = composite(degrees)
    assert np.array_equal(changed, composite(degrees, outline=None))
    assert changed[MIDDLE].min() > 60


def test_in_between_there_is_no_jump():
    changes = [composite(float(degrees)) for degrees in range(7, 20)]
    steps = [np.abs(after - before).max() for before, after in pairwise(changes)]
    assert 0 < max(steps) < 0.15 * changes[0].max()


def test_the_edge_of_the_face_is_soft():
    row = REGION.polygon_mask(OUTLINE)[len(REGION.radius) // 2]
    assert row.max() == 1
    assert row.min() == 0
    assert np.abs(np.diff(row)).max() < 0.25
