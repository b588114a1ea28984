import cv2
import numpy as np
import pytest

from talkinghead.predict.region import mouth_region
from talkinghead.predict.renderer import FeatherRenderer, PoissonRenderer
from talkinghead.types import AVSpec

SPEC = AVSpec()
RENDERERS = [FeatherRenderer, PoissonRenderer]


def skin(size=256, seed=0):
    """Something like skin: smooth shades and a fine grain."""
    rng = np.random.default_rng(seed)
    shade = cv2.GaussianBlur(rng.standard_normal((size, size, 3)).astype(np.float32), (0, 0), 25)
    grain = rng.standard_normal((size, size, 1)).astype(np.float32)
    return np.clip([190, 150, 130] + 200 * shade + 2 * grain, 0, 255).astype(np.uint8)


@pytest.fixture
def region():
    transform = np.float32([[1, 0, 0], [0, 1, 0]])
    return mouth_region(transform, 256, 256, SPEC)


def seam(composite, truth, region):
    """How much steeper the composite is than the truth where the mouth begins: mean levels."""
    error = cv2.blur(region.of(composite).astype(np.float32) - region.of(truth), (5, 5))
    gradient = np.hypot(cv2.Sobel(error, -1, 1, 0), cv2.Sobel(error, -1, 0, 1)).mean(-1)
    return gradient[(region.radius > 0.75) & (region.radius < 1.05)].mean()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_outside_the_box_every_pixel_is_the_pictures_own(renderer, region):
    picture = skin()
    given = picture.copy()
    mouth = np.random.default_rng(1).uniform(0, 255, (*region.places.shape[:2], 3))
    composite = renderer().render(picture, mouth.astype(np.float32), region, 0.0)
    x0, y0, x1, y1 = (int(v) for v in SPEC.mouth_box)
    outside = np.ones((256, 256), bool)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(composite[outside], picture[outside])
    assert not np.array_equal(composite, picture)
    assert np.array_equal(picture, given)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_pictures_own_mouth_leaves_no_trace(renderer, region):
    picture = skin()
    mouth = region.of(picture).astype(np.float32)
    assert np.array_equal(renderer().render(picture, mouth, region, 0.0), picture)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_colour_shift_is_corrected(renderer, region):
    picture = skin()
    mouth = region.of(picture) * np.float32(0.9) + np.float32([0, 10, 18])
    composite = renderer().render(picture, mouth, region, 0.0)
    inside = region.radius < 0.7
    error = np.abs(region.of(composite).astype(float) - region.of(picture))[inside].mean()
    assert error < 0.25 * np.abs(mouth - region.of(picture))[inside].mean()


def test_in_uneven_light_poisson_leaves_less_of_a_seam_than_feather(region):
    picture = skin()
    light = 40 * (region.places[..., :1] - np.float32(0.5))
    mouth = region.of(picture) + light
    feather, poisson = (
        seam(renderer().render(picture, mouth, region, 0.0), picture, region)
        for renderer in RENDERERS
    )
    assert poisson < 0.6 * feather


def test_poisson_keeps_the_mouths_gradients(region):
    picture = skin()
    mouth = region.of(picture).astype(np.float32) + 12
    mouth[60:80, 50:90] -= 80
    composite = region.of(PoissonRenderer().render(picture, mouth, region, 0.0)).astype(float)
    step = composite[70, 70] - composite[70, 40]
    assert np.allclose(step, mouth[70, 70] - mouth[70, 40], atol=12)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_correction_does_not_flicker(renderer, region):
    picture = skin()
    rng = np.random.default_rng(2)
    flickering = renderer()
    levels = []
    for frame in range(40):
        mouth = region.of(picture) + np.float32(6 * rng.standard_normal())
        composite = flickering.render(picture, mouth, region, frame / 25)
        difference = region.of(composite).astype(float) - mouth
        levels.append(difference[region.radius < 0.7].mean())
    # What is added to the mouth is nearly constant although what it should be jumps about.
    assert np.std(levels[10:]) < 3.0


@pytest.mark.parametrize("renderer", RENDERERS)
def test_reset_forgets_the_colour_of_the_last_shot(renderer, region):
    picture = skin()
    mouth = region.of(picture).astype(np.float32)
    used = renderer()
    for frame in range(5):
        used.render(picture, mouth + 30, region, frame / 25)
    used.reset()
    assert np.array_equal(
        used.render(picture, mouth - 20, region, 0.2),
        renderer().render(picture, mouth - 20, region, 0.2),
    )


def test_a_box_over_the_border_and_a_tiny_one_are_rendered():
    picture = skin()
    for transform in ([[1, 0, 90], [0, 1, 20]], [[20, 0, -2000], [0, 20, -1000]]):
        region = mouth_region(np.float32(transform), 256, 256, SPEC)
        mouth = np.zeros((*region.places.shape[:2], 3), np.float32)
        for renderer in RENDERERS:
            assert renderer().render(picture, mouth, region, 0.0).shape == picture.shape
