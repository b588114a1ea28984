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


IMAGE = skin()
REGION = find_mouth_region(np.eye(2, 3, dtype=np.float32), 256, 256, SPEC)
CROP = REGION.crop(IMAGE)
INNER = REGION.radius < 0.7
GREY_IMAGE = np.full((256, 256, 3), 128, np.uint8)


def render(renderer, mouth, time_s=0.0, region=REGION, image=IMAGE):
    """Return the region of the image with a mouth."""
    mouth = PaintedMouth(mouth.astype(np.float32), np.zeros(mouth.shape[:2], np.float32), 1.5)
    return region.crop(renderer.render(image, mouth, region, time_s)).astype(np.float32)


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
        # The outline marks a video, whose chin is not moved.
        source = replace(source, outline=np.float32([[0, 0], [256, 0], [128, 256]]))
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
def test_equal_mouth_and_occluded_pixels_leave_the_image_unchanged(renderer):
    assert np.array_equal(render(renderer(), CROP), CROP)
    mouth = CROP.astype(np.float32)
    mouth[40:] -= 60
    visibility = (REGION.box_xy[..., 0] > 0.5).astype(np.float32)
    composite = render(renderer(), mouth, region=replace(REGION, visibility=visibility))
    assert np.array_equal(composite[visibility == 0], CROP[visibility == 0])
    assert not np.array_equal(composite, CROP)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_colour_shift_is_corrected(renderer):
    mouth = CROP * np.float32(0.9) + np.float32([0, 10, 18])
    error = np.abs(render(renderer(), mouth) - CROP)[INNER].mean()
    assert error < 0.25 * np.abs(mouth - CROP)[INNER].mean()


def test_seam_in_uneven_light_is_weaker_than_with_feather():
    light = 40 * (REGION.box_xy[..., :1] - np.float32(0.5))

    def seam(renderer):
        """Return the mean gradient of the composite's error along the edge, in levels."""
        error = cv2.blur(render(renderer(), CROP + light) - CROP, (5, 5))
        gradient = np.hypot(cv2.Sobel(error, -1, 1, 0), cv2.Sobel(error, -1, 0, 1)).mean(-1)
        return gradient[(REGION.radius > 0.75) & (REGION.radius < 1.05)].mean()

    feather, laplacian, poisson = map(seam, RENDERERS)
    assert poisson < 0.6 * feather
    assert laplacian < 0.8 * feather


@pytest.mark.parametrize("renderer", RENDERERS)
def test_subpixel_motion_of_the_head_causes_no_flicker(renderer):
    without_grain = renderer(grain=False)
    levels = []
    for frame in range(20):
        transform = np.float32([[1, 0, 0.37 * frame], [0, 1, -0.21 * frame]])
        region = find_mouth_region(transform, 256, 256, SPEC)
        mouth = np.repeat(148 + 60 * (region.box_xy - 0.5)[..., 0, None], 3, -1)
        composite = render(without_grain, mouth, frame / 25, region, GREY_IMAGE)
        levels.append(composite[region.radius < 0.8].mean())
    assert np.std(levels) < 0.25


def test_poisson_keeps_gradients_of_the_mouth():
    mouth = CROP.astype(np.float32) + 12
    x, y = SPEC.mouth_x - REGION.columns.start, SPEC.mouth_y - REGION.rows.start
    mouth[y + 60 : y + 76, x + 60 : x + 84] -= 80  # Inside the skin ring.
    composite = render(PoissonRenderer(), mouth)
    inside, outside = (y + 68, x + 70), (y + 68, x + 40)
    step = composite[inside] - composite[outside]
    assert np.allclose(step, mouth[inside] - mouth[outside], atol=12)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_colour_correction_does_not_flicker_and_is_cleared_by_reset(renderer):
    rng = np.random.default_rng(2)
    used = renderer()
    levels = []
    for frame in range(40):
        mouth = CROP + np.float32(6 * rng.standard_normal())
        levels.append((render(used, mouth, frame / 25) - mouth)[INNER].mean())
    # The correction is nearly constant although its target changes in every frame.
    assert np.std(levels[10:]) < 3.0
    used.reset()
    darker = CROP.astype(np.float32) - 20
    assert np.array_equal(render(used, darker, 0.2), render(renderer(), darker, 0.2))


def test_clipped_and_tiny_regions_are_rendered():
    for transform in ([[1, 0, 90], [0, 1, 20]], [[20, 0, -2000], [0, 20, -1000]]):
        region = find_mouth_region(np.float32(transform), 256, 256, SPEC)
        shape = region.radius.shape
        for renderer in RENDERERS:
            for weight in (0.0, 1.0):
                mouth = PaintedMouth(
                    np.zeros((*shape, 3), np.float32), np.full(shape, weight, np.float32), 1.5
                )
                assert renderer().render(IMAGE, mouth, region, 0.0).shape == IMAGE.shape
