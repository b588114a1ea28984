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
    """Something like skin: smooth shades and a fine grain."""
    rng = np.random.default_rng(seed)
    shade = cv2.GaussianBlur(rng.standard_normal((size, size, 3)).astype(np.float32), (0, 0), 25)
    grain = rng.standard_normal((size, size, 1)).astype(np.float32)
    return np.clip([190, 150, 130] + 200 * shade + 2 * grain, 0, 255).astype(np.uint8)


def mouth_of(image, share=0.0):
    """Wholly warped, unless a share of it is painted."""
    return PaintedMouth(image, np.full(image.shape[:2], share, np.float32), 1.5)


@pytest.fixture
def region():
    transform = np.float32([[1, 0, 0], [0, 1, 0]])
    return find_mouth_region(transform, 256, 256, SPEC)


def seam(composite, truth, region):
    """How much steeper the composite is than the truth where the mouth begins: mean levels."""
    error = cv2.blur(region.crop(composite).astype(np.float32) - region.crop(truth), (5, 5))
    gradient = np.hypot(cv2.Sobel(error, -1, 1, 0), cv2.Sobel(error, -1, 0, 1)).mean(-1)
    return gradient[(region.radius > 0.75) & (region.radius < 1.05)].mean()


def a_nodding_head(num_frames=4):
    """Frames of a noisy video whose head moves and tilts, with wild mouths; and their regions."""
    rng = np.random.default_rng(1)
    pictures = [skin(seed=seed) for seed in range(num_frames)]
    straight = np.float32([[1, 0, 0], [0, 1, 0]])
    reference = Reference(pictures[0], straight, np.zeros((20, 2), np.float32))
    for number, picture in enumerate(pictures):
        tilt = 0.1 * number
        transform = np.float32([[1.2, -tilt, 3 * number], [tilt, 1.2, -40]])
        source = SourceFrame(picture, Fraction(number, 25), Fraction(1, 25), transform, reference)
        fields = MouthFields(
            flow=(0.03 * rng.standard_normal((48, 48, 2))).astype(np.float32),
            rgb=rng.random((96, 96, 3), dtype=np.float32),
            mask=rng.random((96, 96), dtype=np.float32),
        )
        yield GeneratedFrame(source, fields), find_mouth_region(transform, 256, 256, SPEC)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_outside_the_ellipse_every_pixel_is_the_sources_own(renderer):
    compositor = Compositor(renderer(), SPEC, occlusion_guard=True)
    for frame, region in a_nodding_head():
        given = frame.source.image.copy()
        composite, _ = compositor.composite(frame)
        outside = np.ones(given.shape[:2], bool)
        region.crop(outside)[:] = region.radius >= 1
        assert np.array_equal(composite[outside], given[outside])
        assert np.abs(composite[~outside].astype(int) - given[~outside]).mean() > 5
        assert np.array_equal(frame.source.image, given)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_pictures_own_mouth_leaves_no_trace(renderer, region):
    picture = skin()
    mouth = region.crop(picture).astype(np.float32)
    assert np.array_equal(renderer().render(picture, mouth_of(mouth), region, 0.0), picture)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_colour_shift_is_corrected(renderer, region):
    picture = skin()
    mouth = region.crop(picture) * np.float32(0.9) + np.float32([0, 10, 18])
    composite = renderer().render(picture, mouth_of(mouth), region, 0.0)
    inside = region.radius < 0.7
    error = np.abs(region.crop(composite).astype(float) - region.crop(picture))[inside].mean()
    assert error < 0.25 * np.abs(mouth - region.crop(picture))[inside].mean()


def test_in_uneven_light_the_others_leave_less_of_a_seam_than_feather(region):
    picture = skin()
    light = 40 * (region.box_xy[..., :1] - np.float32(0.5))
    mouth = region.crop(picture) + light
    feather, laplacian, poisson = (
        seam(renderer().render(picture, mouth_of(mouth), region, 0.0), picture, region)
        for renderer in RENDERERS
    )
    assert poisson < 0.6 * feather
    assert laplacian < 0.8 * feather


def test_laplacian_fades_shades_over_a_wider_edge_than_detail(region):
    picture = np.full((256, 256, 3), 128, np.uint8)
    stripes = 40 * np.sign(np.sin(2 * np.pi * 40 * region.box_xy[..., 0]))
    near_the_edge = (region.radius > 0.75) & (region.radius < 0.9)

    def kept(difference):
        mouth = (region.crop(picture) + difference).astype(np.float32)
        composite = LaplacianRenderer().render(picture, mouth_of(mouth), region, 0.0)
        changed = np.abs(region.crop(composite).astype(float) - 128).mean(-1)
        return changed[near_the_edge].mean() / changed[region.radius < 0.4].mean()

    shade = 30 * np.float32([[[1, -1, 0]]]) * np.sign(region.box_xy[..., 1:] - 0.5)
    assert kept(stripes[..., None]) > kept(shade) + 0.2


@pytest.mark.parametrize("renderer", RENDERERS)
def test_what_covers_the_mouth_stays(renderer, region):
    picture = skin()
    mouth = region.crop(picture).astype(np.float32)
    mouth[40:] -= 60
    visible = (region.box_xy[..., 0] > 0.5).astype(np.float32)
    composite = renderer().render(
        picture, mouth_of(mouth), replace(region, visibility=visible), 0.0
    )
    covered = visible == 0
    assert np.array_equal(region.crop(composite)[covered], region.crop(picture)[covered])
    assert not np.array_equal(composite, picture)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_head_that_moves_by_parts_of_a_pixel_does_not_flicker(renderer):
    """What is added lies in the face: it goes with the head instead of changing with the grid."""
    picture = np.full((256, 256, 3), 128, np.uint8)
    still = renderer(grain=False)
    levels = []
    for frame in range(20):
        transform = np.float32([[1, 0, 0.37 * frame], [0, 1, -0.21 * frame]])
        region = find_mouth_region(transform, 256, 256, SPEC)
        across = (region.box_xy - 0.5)[..., 0, None]
        mouth = np.repeat(128 + 60 * across + 20, 3, -1).astype(np.float32)
        composite = still.render(picture, mouth_of(mouth), region, frame / 25)
        levels.append(region.crop(composite).astype(float)[region.radius < 0.8].mean())
    assert np.std(levels) < 0.25


def test_poisson_keeps_the_mouths_gradients(region):
    picture = skin()
    mouth = region.crop(picture).astype(np.float32) + 12
    x, y = SPEC.mouth_x - region.columns.start, SPEC.mouth_y - region.rows.start
    mouth[y + 60 : y + 76, x + 60 : x + 84] -= 80  # within the ring that colours are taken from
    composite = PoissonRenderer().render(picture, mouth_of(mouth), region, 0.0)
    inside, outside = (y + 68, x + 70), (y + 68, x + 40)
    step = region.crop(composite)[inside].astype(float) - region.crop(composite)[outside]
    assert np.allclose(step, mouth[inside] - mouth[outside], atol=12)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_correction_does_not_flicker(renderer, region):
    picture = skin()
    rng = np.random.default_rng(2)
    flickering = renderer()
    levels = []
    for frame in range(40):
        mouth = region.crop(picture) + np.float32(6 * rng.standard_normal())
        composite = flickering.render(picture, mouth_of(mouth), region, frame / 25)
        difference = region.crop(composite).astype(float) - mouth
        levels.append(difference[region.radius < 0.7].mean())
    # What is added to the mouth is nearly constant although what it should be jumps about.
    assert np.std(levels[10:]) < 3.0


@pytest.mark.parametrize("renderer", RENDERERS)
def test_reset_forgets_the_colour_of_the_last_shot(renderer, region):
    picture = skin()
    mouth = region.crop(picture).astype(np.float32)
    used = renderer()
    for frame in range(5):
        used.render(picture, mouth_of(mouth + 30), region, frame / 25)
    used.reset()
    assert np.array_equal(
        used.render(picture, mouth_of(mouth - 20), region, 0.2),
        renderer().render(picture, mouth_of(mouth - 20), region, 0.2),
    )


def test_a_box_over_the_border_and_a_tiny_one_are_rendered():
    picture = skin()
    for transform in ([[1, 0, 90], [0, 1, 20]], [[20, 0, -2000], [0, 20, -1000]]):
        region = find_mouth_region(np.float32(transform), 256, 256, SPEC)
        mouth = np.zeros((*region.box_xy.shape[:2], 3), np.float32)
        for renderer in RENDERERS:
            for share in (0.0, 1.0):
                composite = renderer().render(picture, mouth_of(mouth, share), region, 0.0)
                assert composite.shape == picture.shape
