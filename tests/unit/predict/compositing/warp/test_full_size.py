"""Large mouths are rendered in a reduced image and transferred to the frame at full size."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from talkinghead.predict.compositing import mouth_region
from talkinghead.predict.compositing.compositor import Compositor
from talkinghead.predict.compositing.lighting import LightChange
from talkinghead.predict.compositing.mouth_region import find_mouth_region
from talkinghead.predict.compositing.renderers import LaplacianRenderer
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.compositing.warp.fine_grain import FineGrain
from talkinghead.predict.mouth_generator import GeneratedFrame
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.types import AVSpec

SPEC = AVSpec()
HEIGHT, WIDTH = 1405, 1303
TRANSFORM = np.float32([[0.2, 0.01, -5], [-0.01, 0.2, 10]])  # A mouth box of 719 pixels.
LIPS = np.zeros((20, 2), np.float32)


def textured(noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.normal(120, 40, (40, 40, 3)), (WIDTH, HEIGHT))
    fine = cv2.GaussianBlur(rng.normal(0, 30, (HEIGHT, WIDTH, 3)), (0, 0), 2)
    noise = noise * rng.standard_normal((HEIGHT, WIDTH, 1))
    return np.rint(coarse + fine + noise).clip(0, 255).astype(np.uint8)


def composite(frame, reference, mask=0.0, flow=0.0, grain=True):
    """Return the patch with the mouth and its place."""
    source = SourceFrame(
        frame, Fraction(0), Fraction(1, 25), TRANSFORM, Reference(reference, TRANSFORM, LIPS)
    )
    disc = cv2.circle(np.zeros((96, 96), np.float32), (48, 48), 20, mask, -1)
    fields = MouthFields(
        np.full((48, 48, 2), flow, np.float32), np.full((96, 96, 3), 0.5, np.float32), disc
    )
    compositor = Compositor(LaplacianRenderer(grain=grain), SPEC, stabilise=False)
    image, _ = compositor.composite_patches(GeneratedFrame(source, fields))
    return image.patches[0]


def at_full_size(monkeypatch, *args, **options):
    with monkeypatch.context() as patched:
        patched.setattr(mouth_region, "_REDUCED_SIDE", 10_000)
        return composite(*args, **options)


def test_only_large_mouths_are_reduced():
    assert find_mouth_region(TRANSFORM, HEIGHT, WIDTH, SPEC).factor == 1
    assert find_mouth_region(TRANSFORM, HEIGHT, WIDTH, SPEC, reduce=True).factor == 3
    small = np.eye(2, 3, dtype=np.float32)
    assert find_mouth_region(small, 256, 256, SPEC, reduce=True).factor == 1


def test_reduced_region_matches_the_frame():
    whole, reduced = (
        find_mouth_region(TRANSFORM, HEIGHT, WIDTH, SPEC, reduce=reduce) for reduce in (False, True)
    )
    for part, expected in zip(reduced.frame_part, (whole.rows, whole.columns), strict=True):
        assert abs(part.start - expected.start) <= 3
        assert abs(part.stop - expected.stop) <= 4
    assert reduced.frame_box_to_image == pytest.approx(whole.box_to_image, abs=1e-3)
    corner = np.float32([[whole.columns.start + 1, whole.rows.start + 1]])
    assert reduced.from_frame(corner) == pytest.approx(corner / 3 - 1 / 3, abs=1e-3)


def test_mouth_at_the_border_covers_the_last_rows_and_columns():
    transform = TRANSFORM - np.float32([[0, 0, 90], [0, 0, 90]])  # 1405 and 1303 rest 1 by 3.
    region = find_mouth_region(transform, HEIGHT, WIDTH, SPEC, reduce=True)
    rows, columns = region.frame_part
    assert (rows.stop, columns.stop) == (HEIGHT, WIDTH)
    region = find_mouth_region(transform, HEIGHT - 1, WIDTH - 1, SPEC, reduce=True)
    assert region.factor == 3
    rows, columns = region.frame_part
    assert (rows.stop, columns.stop) == (HEIGHT - 1, WIDTH - 1)


@pytest.mark.parametrize(("mask", "flow"), [(0.0, 0.03), (1.0, 0.0), (0.6, -0.02)])
def test_mouth_equals_a_rendering_at_full_size(monkeypatch, mask, flow):
    image = textured()
    patch = composite(image, image.copy(), mask, flow)
    expected = at_full_size(monkeypatch, image, image.copy(), mask, flow)
    rows, columns = patch.rows, patch.columns
    whole = image.copy()
    whole[expected.rows, expected.columns] = expected.pixels
    part = np.ascontiguousarray(whole[rows, columns])
    assert cv2.PSNR(part, patch.pixels) > 38
    # The mouth differs from the frame by much more.
    assert cv2.PSNR(np.ascontiguousarray(image[rows, columns]), patch.pixels) < 30


def test_photo_without_motion_is_unchanged():
    image = textured(noise=3.0)
    patch = composite(image, image)
    assert np.array_equal(patch.pixels, image[patch.rows, patch.columns])


def test_mouth_has_the_noise_of_the_frame():
    """The averaged reference has none."""
    noisy, clean = textured(noise=6.0), textured()
    levels = {}
    for grain in (False, True):
        patch = composite(noisy, clean, mask=1.0, grain=grain)
        height, width = patch.pixels.shape[:2]
        inner = patch.pixels[height // 3 : -height // 3, width // 3 : -width // 3]
        grey = cv2.cvtColor(np.ascontiguousarray(inner), cv2.COLOR_RGB2GRAY)
        levels[grain] = np.std(grey - cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 2))
    assert levels[False] < 3.5
    assert 4.5 < levels[True] < 7.5


def test_noise_of_a_still_image_is_constant_and_that_of_film_is_not():
    region = find_mouth_region(TRANSFORM, HEIGHT, WIDTH, SPEC, reduce=True)
    weights = np.ones_like(region.radius), np.zeros_like(region.radius)
    clean = textured()[region.frame_part]
    still, film = FineGrain(0), FineGrain(0)
    frame = textured(noise=6.0)[region.frame_part]
    first, second = (still(frame, clean, region, weights, t / 25) for t in range(2))
    assert np.array_equal(first, second)
    noises = []
    for index in range(2):
        other = np.clip(clean + np.random.default_rng(index).normal(0, 6, clean.shape), 0, 255)
        noises.append(film(other.astype(np.uint8), clean, region, weights, index / 25))
    assert abs(np.corrcoef(noises[0].ravel(), noises[1].ravel())[0, 1]) < 0.2


def test_detail_of_the_reference_has_the_light_of_the_frame():
    dark = LightChange(
        np.hstack([0.2 * np.eye(3), np.zeros((3, 1))]).astype(np.float32), np.zeros(2)
    )
    image = textured()
    assert np.abs(dark.apply_colours(image) - 0.2 * image.astype(float)).max() <= 0.51
