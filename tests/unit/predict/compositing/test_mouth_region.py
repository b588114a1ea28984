"""Mouth regions, painted mouths and their stabilisation."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from talkinghead.predict.compositing.mouth_region import (
    Texture,
    box_to_image,
    find_mouth_region,
    paint_mouth,
)
from talkinghead.predict.compositing.stabiliser import MouthFields, MouthStabiliser, OneEuroFilter
from talkinghead.types import AVSpec

SPEC = AVSpec()


def similarity(scale, degrees, x, y):
    """Return a transform that maps image (x, y) to the centre of the canonical face."""
    a = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.hstack([linear, (np.array([128, 128]) - linear @ [x, y])[:, None]]).astype(np.float32)


def fields(flow=(0.0, 0.0), mask=0.0, rgb=(0.0, 0.0, 0.0)):
    return MouthFields(
        flow=np.full((48, 48, 2), flow, np.float32),
        rgb=np.full((96, 96, 3), rgb, np.float32),
        mask=np.full((96, 96), mask, np.float32),
    )


def paint(transform, mouth, reference_transform=None):
    """Return an image, its mouth region and the mouth painted from the same image."""
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    region = find_mouth_region(transform, *image.shape[:2], SPEC)
    source = transform if reference_transform is None else reference_transform
    return image, region, paint_mouth(mouth, Texture(image, box_to_image(source, SPEC)), region)


@pytest.mark.parametrize(("scale", "tolerance"), [(1.0, 0), (0.2, 0.06)])
def test_polygon_mask_is_the_blurred_polygon(scale, tolerance):
    """The mask of a large face is made at a smaller size."""
    region = find_mouth_region(similarity(scale, 10, 600, 500), 1000, 1200, SPEC)
    box = np.array([(0.2, -0.2), (0.9, 0.1), (0.7, 0.9), (0.4, 0.8)], np.float32)
    polygon = box @ region.box_to_image[:, :2].T + region.box_to_image[:, 2]
    filled = np.zeros(region.radius.shape, np.float32)
    inside = np.rint(polygon - [region.columns.start, region.rows.start]).astype(np.int32)
    cv2.fillConvexPoly(filled, inside, 2.0)
    expected = cv2.GaussianBlur(filled, (0, 0), 0.03 * region.side_px).clip(0, 1)
    found = region.polygon_mask(polygon)
    edge = round(0.06 * region.side_px)
    difference = np.abs(found - expected)[edge:-edge, edge:-edge]
    assert (found.min(), found.max()) == (0, 1)
    assert difference.max() <= tolerance


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0), (0.7, 20), (1.9, -35)])
def test_zero_flow_keeps_the_pixels_of_a_photo(scale, degrees):
    image, region, painted = paint(similarity(scale, degrees, 200, 150), fields())
    assert np.array_equal(painted.image, region.crop(image))


def test_flow_is_in_box_sides_and_points_to_the_source():
    flow = (6 / SPEC.mouth_side, 0)
    image, region, painted = paint(similarity(1.0, 0, 200, 100), fields(flow))
    expected = region.crop(image)[5:-5, 11:-9]
    assert np.abs(painted.image[5:-5, 5:-15] - expected).max() < 1.0


def test_mask_is_the_blend_weight_of_rgb():
    mouth = fields(mask=1.0, rgb=(1.0, 0.5, 0.0))
    _, region, painted = paint(similarity(1.0, 10, 200, 150), mouth)
    assert np.allclose(painted.image, [255, 127.5, 0], atol=1e-3)
    assert painted.rgb_weight.shape == region.radius.shape
    assert np.allclose(painted.rgb_weight, 1)
    assert painted.rgb_pixel_px == pytest.approx(SPEC.mouth_side / 96)


def test_texture_of_another_frame_is_aligned_to_the_face():
    before, now = similarity(1.0, 0, 200, 120), similarity(1.0, 0, 207, 131)
    image, _, painted = paint(now, fields(), before)
    expected = find_mouth_region(before, *image.shape[:2], SPEC).crop(image)
    assert np.array_equal(painted.image[:80, :80], expected[:80, :80])


def test_mouth_box_of_an_aligned_face_matches_the_spec():
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


def test_region_is_clipped_at_the_image_border_and_none_outside():
    cut = find_mouth_region(similarity(1.0, 0, 0, 0), 100, 100, SPEC)
    assert cut.rows.start == 0
    assert cut.columns.start == 0
    assert find_mouth_region(similarity(1.0, 0, 900, 900), 100, 100, SPEC) is None


def noisy_fields(seed=0, level=0.0):
    noise = 0.0005 * np.random.default_rng(seed).standard_normal((48, 48, 2))
    return replace(fields(mask=0.5), flow=(level + noise).astype(np.float32))


def test_jitter_is_smoothed():
    stabiliser = MouthStabiliser()
    inputs = [noisy_fields(seed) for seed in range(50)]
    outputs = [stabiliser(fields, i / 25).flow for i, fields in enumerate(inputs)]
    before = np.std([fields.flow for fields in inputs[10:]])
    assert np.std(outputs[10:]) < 0.75 * before


def test_first_frame_after_reset_and_constant_fields_are_unchanged():
    stabiliser = MouthStabiliser()
    stabiliser(noisy_fields(level=0.0), 0.0)
    stabiliser.reset()
    fields = noisy_fields(level=0.004)
    for time_s in (0.04, 0.08):
        assert np.array_equal(stabiliser(fields, time_s).flow, fields.flow)


def test_cutoff_does_not_depend_on_frame_rate():
    def after_a_second(fps):
        one_euro = OneEuroFilter(min_cutoff_hz=0.2, speed_coefficient=0.0)
        one_euro(np.zeros(1, np.float32), 0.0)
        for i in range(1, fps + 1):
            value = one_euro(np.ones(1, np.float32), i / fps)
        return float(value[0])

    assert abs(after_a_second(25) - after_a_second(60)) < 0.02


@pytest.mark.parametrize("hz", [2, 6])
def test_speech_motion_is_delayed_by_less_than_half_a_frame(hz):
    """The flow varies by 0.5 % of the box, as in the clips of docs/rendering.md."""
    stabiliser = MouthStabiliser()
    inputs = 0.005 * np.sqrt(2) * np.sin(2 * np.pi * hz * np.arange(100) / 25)
    outputs = [
        stabiliser(noisy_fields(i, level), i / 25).flow.mean() for i, level in enumerate(inputs)
    ]
    wave = np.exp(-2j * np.pi * hz * np.arange(75) / 25)
    before, after = (np.vdot(wave, x[25:] - np.mean(x[25:])) for x in (inputs, outputs))
    assert 0 < 1000 * np.angle(after / before) / (2 * np.pi * hz) < 15
    assert np.std(outputs[25:]) > 0.85 * np.std(inputs[25:])
