from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from talkinghead.predict.compositing.colour_matching import DetailMatcher, remove_green_cast
from talkinghead.predict.compositing.mouth_region import PaintedMouth, find_mouth_region
from talkinghead.types import AVSpec

SIZE = 256
REGION = find_mouth_region(np.float32([[1, 0, 0], [0, 1, 0]]), SIZE, SIZE, AVSpec())
INSIDE = REGION.radius < 0.6


def skin_image(noise=0.0, detail=12.0, seed=0):
    """Return an image of skin with folds of several sizes and camera noise."""
    rng = np.random.default_rng(7)
    folds = sum(
        cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), sigma) * sigma * strength
        for sigma, strength in ((1, detail), (3, 20), (8, 30))
    )
    grain = noise * np.random.default_rng(seed).standard_normal((SIZE, SIZE))
    return np.clip(130 + (folds + grain)[..., None], 0, 255).repeat(3, -1).astype(np.uint8)


def painted(image, sigma=0.0, rgb_weight=1.0):
    """Return the region of an image, blurred, as a generated mouth."""
    mouth = REGION.crop(image).astype(np.float32)
    mouth = cv2.GaussianBlur(mouth, (0, 0), sigma) if sigma else mouth
    return PaintedMouth(mouth, np.full(mouth.shape[:2], rgb_weight, np.float32), 1.5)


def detail(image):
    """Return the high-frequency energy in the region."""
    grey = np.asarray(image, dtype=np.float32)[..., 1]
    return float(np.std((grey - cv2.GaussianBlur(grey, (0, 0), 1.05))[INSIDE]))


def match(matcher, mouth, image, time_s=0.0):
    return matcher.match(mouth, image, REGION, time_s)


def test_soft_rgb_is_sharpened_at_most_to_the_sharpness_of_the_image():
    image = skin_image()
    mouth = painted(image, sigma=1.2)
    target, before = detail(REGION.crop(image)), detail(mouth.image)
    after = detail(match(DetailMatcher(grain=False), mouth, image))
    assert before < 0.6 * target
    assert 1.3 * before < after <= target


def test_rgb_as_sharp_as_the_image_is_unchanged():
    sharp, soft = skin_image(detail=30.0), skin_image(detail=4.0)
    for image in (sharp, soft):
        mouth = painted(sharp)
        assert np.allclose(match(DetailMatcher(grain=False), mouth, image), mouth.image, atol=0.05)


def test_noise_of_the_image_does_not_count_as_sharpness():
    noisy = skin_image(noise=6.0, detail=0.0)
    mouth = painted(skin_image(detail=0.0))
    got = match(DetailMatcher(grain=False), mouth, noisy)
    assert detail(got) < 1.25 * detail(mouth.image)


def test_warped_texture_is_unchanged():
    image = skin_image(noise=5.0)
    warped, noisy = painted(image, sigma=2.0, rgb_weight=0.0), painted(image, rgb_weight=0.0)
    assert np.array_equal(match(DetailMatcher(grain=False), warped, image), warped.image)
    assert np.array_equal(match(DetailMatcher(), noisy, image), noisy.image)
    soft = painted(image, sigma=2.0)
    assert np.array_equal(match(DetailMatcher(False, False), soft, image), soft.image)
    soft.rgb_weight[:, :60] = 0
    got = match(DetailMatcher(grain=False), soft, image)
    assert np.array_equal(got[:, :60], soft.image[:, :60])


def test_sharpening_does_not_flicker():
    image = skin_image()
    matcher = DetailMatcher(grain=False)
    gains = []
    for frame in range(40):
        mouth = painted(image, sigma=1.0 if frame % 2 else 1.4)
        gains.append(detail(match(matcher, mouth, image, frame / 25)) / detail(mouth.image))
    # The same sharpening has slightly different effects on the two degrees of blur.
    assert np.ptp(gains[20:]) < 0.3


@pytest.mark.parametrize(
    ("level", "texture_level", "rgb_weight"), [(0, 0, 1), (2, 0, 1), (6, 3, 0), (6, 3, 0.5)]
)
def test_missing_grain_is_added_to_rgb_and_texture(level, texture_level, rgb_weight):
    image = skin_image(noise=level, detail=0.0)
    clean = painted(skin_image(detail=0.0)).image
    noise = painted(skin_image(noise=texture_level, detail=0.0, seed=3)).image - clean
    # The RGB has no noise.
    mouth = replace(painted(image, rgb_weight=rgb_weight), image=clean + (1 - rgb_weight) * noise)
    grain = (match(DetailMatcher(sharpen=False), mouth, image) - clean)[INSIDE]
    assert grain.std() == pytest.approx(level, rel=0.25, abs=0.2)
    assert abs(grain.mean()) < 0.2


def grains(images, matcher=None):
    """Return the grain that is added in each frame of a video."""
    matcher = matcher or DetailMatcher(sharpen=False)
    mouth = painted(skin_image(detail=0.0))
    return [
        (match(matcher, mouth, image, i / 25) - mouth.image)[INSIDE][:, 0]
        for i, image in enumerate(images)
    ]


def test_grain_is_constant_in_a_photo_and_new_in_every_frame_of_film():
    photo = skin_image(noise=5.0, detail=0.0)
    first, *others = grains([photo, photo.copy(), photo, photo])
    assert all(np.array_equal(first, other) for other in others)
    film = grains([skin_image(noise=5.0, detail=0.0, seed=seed) for seed in range(4)])
    for before, after in pairwise(film):
        assert abs(np.corrcoef(before, after)[0, 1]) < 0.15


def test_grain_has_the_temporal_correlation_of_the_noise():
    """Half of the noise energy persists between frames, as in compressed video."""
    noises = [skin_image(noise=5.0, detail=0.0, seed=seed) for seed in range(5)]
    half = [((a.astype(float) + b) / 2).round().astype(np.uint8) for a, b in pairwise(noises)]
    before, after = grains(half)[1:3]
    assert 0.25 < np.corrcoef(before, after)[0, 1] < 0.75


def test_grain_depends_on_the_seed_and_restarts_on_reset():
    film = [skin_image(noise=5.0, detail=0.0, seed=seed) for seed in range(3)]
    matcher = DetailMatcher(sharpen=False)
    first = grains(film, matcher)
    assert np.array_equal(grains(film), first)
    matcher.reset()
    assert np.array_equal(grains(film, matcher), first)
    assert not np.array_equal(grains(film, DetailMatcher(sharpen=False, seed=1)), first)


def coloured(red, green, blue):
    return np.full((SIZE, SIZE, 3), (red, green, blue), np.uint8)


@pytest.mark.parametrize(
    ("skin", "green", "corrected", "unchanged"),
    [
        (  # Green teeth become white.
            (210, 150, 130),
            (175, 225, 185),
            (204, 196, 185),
            ((235, 225, 200), (190, 60, 60), (30, 20, 20)),
        ),
        (  # A green haze on skin gets the green of the skin: 187.5 * 33 / 183.5 - 8.
            (200, 167, 90),
            (185, 190, 88),
            (200.36, 174.64, 88),
            ((150, 125, 68), (210, 175, 110), (90, 75, 40), (170, 120, 75)),
        ),
        ((120, 140, 90), None, None, [(170, 200, 160)]),  # Green light.
        ((150, 150, 150), None, None, [(190, 190, 190)]),  # A grey image.
    ],
)
def test_green_of_rgb_is_limited(skin, green, corrected, unchanged):
    if green:
        mouth = painted(coloured(*green))
        mouth.rgb_weight[:, :60] = 0
        got = remove_green_cast(mouth, coloured(*skin), REGION).image
        assert np.array_equal(got[:, :60], mouth.image[:, :60])
        assert np.allclose(got[:, 60:], corrected, atol=0.1)
    for colour in unchanged:
        same = painted(coloured(*colour))
        assert remove_green_cast(same, coloured(*skin), REGION) is same
