from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from talkinghead.predict.compositing.compositor import Compositor
from talkinghead.predict.compositing.mouth_region import PaintedMouth, find_mouth_region
from talkinghead.predict.compositing.renderers import (
    FeatherRenderer,
    LaplacianRenderer,
    PoissonRenderer,
)
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.mouth_generator import GeneratedFrame
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.types import AVSpec

SPEC = AVSpec()
RENDERERS = [FeatherRenderer, LaplacianRenderer, PoissonRenderer]


def skin(size=256, seed=0):
    """Return a skin-like image: smooth shading and fine grain."""
    rng = np.random.default_rng(seed)
    shade = cv2.GaussianBlur(rng.standard_normal((size, size, 3)).astype(np.float32), (0, 0), 25)
    grain = rng.standard_normal((size, size, 1)).astype(np.float32)
    return np.clip([190, 150, 130] + 200 * shade + 2 * grain, 0, 255).astype(np.uint8)


def mouth_of(image, rgb_weight=0.0):
    return PaintedMouth(image, np.full(image.shape[:2], rgb_weight, np.float32), 1.5)


@pytest.fixture
def region():
    transform = np.float32([[1, 0, 0], [0, 1, 0]])
    return find_mouth_region(transform, 256, 256, SPEC)


def seam(composite, truth, region):
    """Return the mean gradient of the composite's error along the edge, in levels."""
    error = cv2.blur(region.crop(composite).astype(np.float32) - region.crop(truth), (5, 5))
    gradient = np.hypot(cv2.Sobel(error, -1, 1, 0), cv2.Sobel(error, -1, 0, 1)).mean(-1)
    return gradient[(region.radius > 0.75) & (region.radius < 1.05)].mean()


def moving_head_frames(num_frames=4):
    """Yield frames of a moving and tilting head with random mouths, and their regions."""
    rng = np.random.default_rng(1)
    images = [skin(seed=seed) for seed in range(num_frames)]
    identity = np.float32([[1, 0, 0], [0, 1, 0]])
    reference = Reference(images[0], identity, np.zeros((20, 2), np.float32))
    for number, image in enumerate(images):
        tilt = 0.1 * number
        transform = np.float32([[1.2, -tilt, 3 * number], [tilt, 1.2, -40]])
        source = SourceFrame(image, Fraction(number, 25), Fraction(1, 25), transform, reference)
        fields = MouthFields(
            flow=(0.03 * rng.standard_normal((48, 48, 2))).astype(np.float32),
            rgb=rng.random((96, 96, 3), dtype=np.float32),
            mask=rng.random((96, 96), dtype=np.float32),
        )
        yield GeneratedFrame(source, fields), find_mouth_region(transform, 256, 256, SPEC)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_pixels_outside_the_ellipse_are_unchanged(renderer):
    compositor = Compositor(renderer(), SPEC, occlusion_guard=True)
    for frame, region in moving_head_frames():
        original = frame.source.image.copy()
        composite, _ = compositor.composite(frame)
        outside = np.ones(original.shape[:2], bool)
        region.crop(outside)[:] = region.radius >= 1
        assert np.array_equal(composite[outside], original[outside])
        assert np.abs(composite[~outside].astype(int) - original[~outside]).mean() > 5
        assert np.array_equal(frame.source.image, original)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_mouth_equal_to_the_image_changes_nothing(renderer, region):
    image = skin()
    mouth = region.crop(image).astype(np.float32)
    assert np.array_equal(renderer().render(image, mouth_of(mouth), region, 0.0), image)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_colour_shift_is_corrected(renderer, region):
    image = skin()
    mouth = region.crop(image) * np.float32(0.9) + np.float32([0, 10, 18])
    composite = renderer().render(image, mouth_of(mouth), region, 0.0)
    inside = region.radius < 0.7
    error = np.abs(region.crop(composite).astype(float) - region.crop(image))[inside].mean()
    assert error < 0.25 * np.abs(mouth - region.crop(image))[inside].mean()


def test_seam_in_uneven_light_is_weaker_than_with_feather(region):
    image = skin()
    light = 40 * (region.box_xy[..., :1] - np.float32(0.5))
    mouth = region.crop(image) + light
    feather, laplacian, poisson = (
        seam(renderer().render(image, mouth_of(mouth), region, 0.0), image, region)
        for renderer in RENDERERS
    )
    assert poisson < 0.6 * feather
    assert laplacian < 0.8 * feather


def test_laplacian_blends_coarse_differences_over_a_wider_edge(region):
    image = np.full((256, 256, 3), 128, np.uint8)
    stripes = 40 * np.sign(np.sin(2 * np.pi * 40 * region.box_xy[..., 0]))
    near_edge = (region.radius > 0.75) & (region.radius < 0.9)

    def kept(difference):
        mouth = (region.crop(image) + difference).astype(np.float32)
        composite = LaplacianRenderer().render(image, mouth_of(mouth), region, 0.0)
        changed = np.abs(region.crop(composite).astype(float) - 128).mean(-1)
        return changed[near_edge].mean() / changed[region.radius < 0.4].mean()

    shade = 30 * np.float32([[[1, -1, 0]]]) * np.sign(region.box_xy[..., 1:] - 0.5)
    assert kept(stripes[..., None]) > kept(shade) + 0.2


@pytest.mark.parametrize("renderer", RENDERERS)
def test_occluded_pixels_are_unchanged(renderer, region):
    image = skin()
    mouth = region.crop(image).astype(np.float32)
    mouth[40:] -= 60
    visibility = (region.box_xy[..., 0] > 0.5).astype(np.float32)
    composite = renderer().render(
        image, mouth_of(mouth), replace(region, visibility=visibility), 0.0
    )
    occluded = visibility == 0
    assert np.array_equal(region.crop(composite)[occluded], region.crop(image)[occluded])
    assert not np.array_equal(composite, image)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_subpixel_motion_of_the_head_causes_no_flicker(renderer):
    image = np.full((256, 256, 3), 128, np.uint8)
    without_grain = renderer(grain=False)
    levels = []
    for frame in range(20):
        transform = np.float32([[1, 0, 0.37 * frame], [0, 1, -0.21 * frame]])
        region = find_mouth_region(transform, 256, 256, SPEC)
        across = (region.box_xy - 0.5)[..., 0, None]
        mouth = np.repeat(128 + 60 * across + 20, 3, -1).astype(np.float32)
        composite = without_grain.render(image, mouth_of(mouth), region, frame / 25)
        levels.append(region.crop(composite).astype(float)[region.radius < 0.8].mean())
    assert np.std(levels) < 0.25


def test_poisson_keeps_gradients_of_the_mouth(region):
    image = skin()
    mouth = region.crop(image).astype(np.float32) + 12
    x, y = SPEC.mouth_x - region.columns.start, SPEC.mouth_y - region.rows.start
    mouth[y + 60 : y + 76, x + 60 : x + 84] -= 80  # Within the ring that colours are measured in.
    composite = PoissonRenderer().render(image, mouth_of(mouth), region, 0.0)
    inside, outside = (y + 68, x + 70), (y + 68, x + 40)
    step = region.crop(composite)[inside].astype(float) - region.crop(composite)[outside]
    assert np.allclose(step, mouth[inside] - mouth[outside], atol=12)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_colour_correction_does_not_flicker(renderer, region):
    image = skin()
    rng = np.random.default_rng(2)
    flickering = renderer()
    levels = []
    for frame in range(40):
        mouth = region.crop(image) + np.float32(6 * rng.standard_normal())
        composite = flickering.render(image, mouth_of(mouth), region, frame / 25)
        difference = region.crop(composite).astype(float) - mouth
        levels.append(difference[region.radius < 0.7].mean())
    # The correction is nearly constant although its target changes in every frame.
    assert np.std(levels[10:]) < 3.0


@pytest.mark.parametrize("renderer", RENDERERS)
def test_reset_clears_the_colour_correction(renderer, region):
    image = skin()
    mouth = region.crop(image).astype(np.float32)
    used = renderer()
    for frame in range(5):
        used.render(image, mouth_of(mouth + 30), region, frame / 25)
    used.reset()
    assert np.array_equal(
        used.render(image, mouth_of(mouth - 20), region, 0.2),
        renderer().render(image, mouth_of(mouth - 20), region, 0.2),
    )


def test_clipped_and_tiny_regions_are_rendered():
    image = skin()
    for transform in ([[1, 0, 90], [0, 1, 20]], [[20, 0, -2000], [0, 20, -1000]]):
        region = find_mouth_region(np.float32(transform), 256, 256, SPEC)
        mouth = np.zeros((*region.box_xy.shape[:2], 3), np.float32)
        for renderer in RENDERERS:
            for weight in (0.0, 1.0):
                composite = renderer().render(image, mouth_of(mouth, weight), region, 0.0)
                assert composite.shape == image.shape
