import numpy as np
import pytest

from talkinghead.predict.compositing.mouth_region import (
    Texture,
    box_to_image,
    find_mouth_region,
    paint_mouth,
)
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.types import AVSpec

SPEC = AVSpec()


def similarity(scale, degrees, x, y):
    """Source to canonical, so that source (x, y) comes to the middle of the canonical face."""
    a = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.hstack([linear, (np.array([128, 128]) - linear @ [x, y])[:, None]]).astype(np.float32)


def picture(height=300, width=400, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fields(flow=(0.0, 0.0), mask=0.0, rgb=(0.0, 0.0, 0.0)):
    return MouthFields(
        flow=np.full((48, 48, 2), flow, np.float32),
        rgb=np.full((96, 96, 3), rgb, np.float32),
        mask=np.full((96, 96), mask, np.float32),
    )


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0), (0.7, 20), (1.9, -35)])
def test_without_flow_a_photo_keeps_its_own_pixels(scale, degrees):
    image = picture()
    transform = similarity(scale, degrees, 200, 150)
    region = find_mouth_region(transform, *image.shape[:2], SPEC)
    texture = Texture(image, box_to_image(transform, SPEC))
    assert np.array_equal(paint_mouth(fields(), texture, region).image, region.crop(image))


def test_flow_counts_in_sides_of_the_box_and_says_where_to_look():
    image = picture()
    transform = similarity(1.0, 0, 200, 100)
    region = find_mouth_region(transform, *image.shape[:2], SPEC)
    texture = Texture(image, box_to_image(transform, SPEC))
    moved = paint_mouth(fields(flow=(6 / SPEC.mouth_side, 0)), texture, region).image
    inside = moved[5:-5, 5:-15]
    assert np.abs(inside - region.crop(image)[5:-5, 11:-9]).max() < 1.0


def test_the_mask_is_the_share_of_rgb():
    image = picture()
    transform = similarity(1.0, 10, 200, 150)
    region = find_mouth_region(transform, *image.shape[:2], SPEC)
    texture = Texture(image, box_to_image(transform, SPEC))
    painted = paint_mouth(fields(mask=1.0, rgb=(1.0, 0.5, 0.0)), texture, region)
    assert np.allclose(painted.image, [255, 127.5, 0], atol=1e-3)
    assert painted.rgb_weight.shape == region.radius.shape
    assert np.allclose(painted.rgb_weight, 1)
    assert painted.rgb_pixel_px == pytest.approx(SPEC.mouth_side / 96)


def test_the_box_of_the_aligned_face_is_the_specs():
    region = find_mouth_region(similarity(1.0, 0, 128, 128), 256, 256, SPEC)
    rows, columns = np.indices(region.radius.shape)
    pixels = np.stack([columns + region.columns.start, rows + region.rows.start], -1) + 0.5
    box = (pixels - [SPEC.mouth_x, SPEC.mouth_y]) / SPEC.mouth_side
    assert np.allclose(region.box_xy, box, atol=1e-4)
    assert region.side_px == pytest.approx(SPEC.mouth_side, abs=1e-3)


@pytest.mark.parametrize("degrees", [0, 30])
def test_the_region_holds_the_ellipse_and_little_else(degrees):
    region = find_mouth_region(similarity(1.0, degrees, 200, 150), 300, 400, SPEC)
    inside = region.radius < 1
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()
    assert inside.mean() > 0.6
    assert inside.sum() == pytest.approx(np.pi * 0.40 * 0.45 * SPEC.mouth_side**2, rel=0.01)


def test_a_box_over_the_border_is_cut_and_one_beyond_it_is_none():
    cut = find_mouth_region(similarity(1.0, 0, 0, 0), 100, 100, SPEC)
    assert cut.rows.start == 0
    assert cut.columns.start == 0
    assert find_mouth_region(similarity(1.0, 0, 900, 900), 100, 100, SPEC) is None
    image = picture(100, 100)
    texture = Texture(image, box_to_image(similarity(1.0, 0, 0, 0), SPEC))
    assert paint_mouth(fields(), texture, cut).image.shape == (*cut.box_xy.shape[:2], 3)


def test_another_frames_texture_is_brought_to_where_the_face_is_now():
    image = picture()
    before, now = similarity(1.0, 0, 200, 120), similarity(1.0, 0, 207, 131)
    region = find_mouth_region(now, *image.shape[:2], SPEC)
    painted = paint_mouth(fields(), Texture(image, box_to_image(before, SPEC)), region).image
    there = find_mouth_region(before, *image.shape[:2], SPEC).crop(image)
    assert np.array_equal(painted[:80, :80], there[:80, :80])
