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
    """Return a transform that maps image (x, y) to the centre of the canonical face."""
    a = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.hstack([linear, (np.array([128, 128]) - linear @ [x, y])[:, None]]).astype(np.float32)


def noise_image(height=300, width=400, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fields(flow=(0.0, 0.0), mask=0.0, rgb=(0.0, 0.0, 0.0)):
    return MouthFields(
        flow=np.full((48, 48, 2), flow, np.float32),
        rgb=np.full((96, 96, 3), rgb, np.float32),
        mask=np.full((96, 96), mask, np.float32),
    )


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0), (0.7, 20), (1.9, -35)])
def test_zero_flow_keeps_the_pixels_of_a_photo(scale, degrees):
    image = noise_image()
    transform = similarity(scale, degrees, 200, 150)
    region = find_mouth_region(transform, *image.shape[:2], SPEC)
    texture = Texture(image, box_to_image(transform, SPEC))
    assert np.array_equal(paint_mouth(fields(), texture, region).image, region.crop(image))


def test_flow_is_in_box_sides_and_points_to_the_source():
    image = noise_image()
    transform = similarity(1.0, 0, 200, 100)
    region = find_mouth_region(transform, *image.shape[:2], SPEC)
    texture = Texture(image, box_to_image(transform, SPEC))
    moved = paint_mouth(fields(flow=(6 / SPEC.mouth_side, 0)), texture, region).image
    inside = moved[5:-5, 5:-15]
    assert np.abs(inside - region.crop(image)[5:-5, 11:-9]).max() < 1.0


def test_mask_is_the_weight_of_rgb():
    image = noise_image()
    transform = similarity(1.0, 10, 200, 150)
    region = find_mouth_region(transform, *image.shape[:2], SPEC)
    texture = Texture(image, box_to_image(transform, SPEC))
    painted = paint_mouth(fields(mask=1.0, rgb=(1.0, 0.5, 0.0)), texture, region)
    assert np.allclose(painted.image, [255, 127.5, 0], atol=1e-3)
    assert painted.rgb_weight.shape == region.radius.shape
    assert np.allclose(painted.rgb_weight, 1)
    assert painted.rgb_pixel_px == pytest.approx(SPEC.mouth_side / 96)


def test_box_of_an_aligned_face_is_that_of_the_spec():
    region = find_mouth_region(similarity(1.0, 0, 128, 128), 256, 256, SPEC)
    rows, columns = np.indices(region.radius.shape)
    pixels = np.stack([columns + region.columns.start, rows + region.rows.start], -1) + 0.5
    box = (pixels - [SPEC.mouth_x, SPEC.mouth_y]) / SPEC.mouth_side
    assert np.allclose(region.box_xy, box, atol=1e-4)
    assert region.side_px == pytest.approx(SPEC.mouth_side, abs=1e-3)


@pytest.mark.parametrize("degrees", [0, 30])
def test_region_encloses_the_ellipse_tightly(degrees):
    region = find_mouth_region(similarity(1.0, degrees, 200, 150), 300, 400, SPEC)
    inside = region.radius < 1
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()
    assert inside.mean() > 0.6
    assert inside.sum() == pytest.approx(np.pi * 0.40 * 0.45 * SPEC.mouth_side**2, rel=0.01)


def test_region_is_clipped_at_the_border_and_none_outside():
    cut = find_mouth_region(similarity(1.0, 0, 0, 0), 100, 100, SPEC)
    assert cut.rows.start == 0
    assert cut.columns.start == 0
    assert find_mouth_region(similarity(1.0, 0, 900, 900), 100, 100, SPEC) is None
    image = noise_image(100, 100)
    texture = Texture(image, box_to_image(similarity(1.0, 0, 0, 0), SPEC))
    assert paint_mouth(fields(), texture, cut).image.shape == (*cut.box_xy.shape[:2], 3)


def test_texture_of_another_frame_is_aligned_to_the_face():
    image = noise_image()
    before, now = similarity(1.0, 0, 200, 120), similarity(1.0, 0, 207, 131)
    region = find_mouth_region(now, *image.shape[:2], SPEC)
    painted = paint_mouth(fields(), Texture(image, box_to_image(before, SPEC)), region).image
    expected = find_mouth_region(before, *image.shape[:2], SPEC).crop(image)
    assert np.array_equal(painted[:80, :80], expected[:80, :80])
