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


def picture(noise=0.0, detail=12.0, seed=0):
    """Skin with folds of several sizes, photographed with some noise."""
    rng = np.random.default_rng(7)
    folds = sum(
        cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), sigma) * sigma * strength
        for sigma, strength in ((1, detail), (3, 20), (8, 30))
    )
    grain = noise * np.random.default_rng(seed).standard_normal((SIZE, SIZE))
    return np.clip(130 + (folds + grain)[..., None], 0, 255).repeat(3, -1).astype(np.uint8)


def painted(image, sigma=0.0, share=1.0):
    """The region of a picture as paint, blurred."""
    mouth = REGION.crop(image).astype(np.float32)
    mouth = cv2.GaussianBlur(mouth, (0, 0), sigma) if sigma else mouth
    return PaintedMouth(mouth, np.full(mouth.shape[:2], share, np.float32), 1.5)


def detail(image):
    """High-frequency energy within the region."""
    grey = np.asarray(image, dtype=np.float32)[..., 1]
    return float(np.std((grey - cv2.GaussianBlur(grey, (0, 0), 1.05))[INSIDE]))


def match(matcher, mouth, image, time_s=0.0):
    return matcher.match(mouth, image, REGION, time_s)


def test_soft_paint_is_sharpened_towards_the_picture_and_not_beyond():
    image = picture()
    mouth = painted(image, sigma=1.2)
    wanted, given = detail(REGION.crop(image)), detail(mouth.image)
    got = detail(match(DetailMatcher(grain=False), mouth, image))
    assert given < 0.6 * wanted
    assert 1.3 * given < got <= wanted


def test_paint_as_sharp_as_the_picture_or_sharper_is_left():
    sharp, soft = picture(detail=30.0), picture(detail=4.0)
    for image in (sharp, soft):
        mouth = painted(sharp)
        assert np.allclose(match(DetailMatcher(grain=False), mouth, image), mouth.image, atol=0.05)


def test_the_pictures_noise_is_not_taken_for_sharpness():
    noisy = picture(noise=6.0, detail=0.0)
    mouth = painted(picture(detail=0.0))
    got = match(DetailMatcher(grain=False), mouth, noisy)
    assert detail(got) < 1.25 * detail(mouth.image)


def test_only_paint_is_touched():
    image = picture(noise=5.0)
    warped, noisy = painted(image, sigma=2.0, share=0.0), painted(image, share=0.0)
    assert np.array_equal(match(DetailMatcher(grain=False), warped, image), warped.image)
    assert np.array_equal(match(DetailMatcher(), noisy, image), noisy.image)
    half = painted(image, sigma=2.0)
    half.rgb_weight[:, :60] = 0
    got = match(DetailMatcher(grain=False), half, image)
    assert np.array_equal(got[:, :60], half.image[:, :60])
    off = painted(image, sigma=2.0)
    assert np.array_equal(match(DetailMatcher(False, False), off, image), off.image)


def test_sharpening_does_not_flicker():
    image = picture()
    matcher = DetailMatcher(grain=False)
    gains = []
    for frame in range(40):
        mouth = painted(image, sigma=1.0 if frame % 2 else 1.4)
        gains.append(detail(match(matcher, mouth, image, frame / 25)) / detail(mouth.image))
    # What is left is what one gain does to the one blur and to the other.
    assert np.ptp(gains[20:]) < 0.3


@pytest.mark.parametrize("noise", [2.0, 6.0])
def test_paint_gets_as_much_grain_as_the_picture_has(noise):
    image = picture(noise=noise, detail=0.0)
    mouth = painted(picture(detail=0.0))
    grain = match(DetailMatcher(sharpen=False), mouth, image) - mouth.image
    assert grain[INSIDE].std() == pytest.approx(noise, rel=0.25)
    assert abs(grain[INSIDE].mean()) < 0.1 * noise


@pytest.mark.parametrize("own", [0.0, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_texture_with_less_noise_than_the_picture_gets_what_is_missing(own, share):
    image = picture(noise=6.0, detail=0.0)
    clean = painted(picture(detail=0.0)).image
    noise = painted(picture(noise=own, detail=0.0, seed=3)).image - clean
    # Paint has no noise.
    mouth = replace(painted(image, share=share), image=clean + (1 - share) * noise)
    got = match(DetailMatcher(sharpen=False), mouth, image) - clean
    assert got[INSIDE].std() == pytest.approx(6.0, rel=0.25)


def test_a_clean_picture_gives_no_grain():
    image = picture(detail=0.0)
    mouth = painted(image)
    grain = match(DetailMatcher(sharpen=False), mouth, image) - mouth.image
    assert np.abs(grain).max() < 1.0


def grains(pictures):
    """The grain on the paint in each of a video's frames."""
    matcher = DetailMatcher(sharpen=False)
    mouth = painted(picture(detail=0.0))
    return [
        (match(matcher, mouth, image, i / 25) - mouth.image)[INSIDE][:, 0]
        for i, image in enumerate(pictures)
    ]


def test_grain_stands_still_in_a_still_and_is_new_in_every_frame_of_film():
    photo = picture(noise=5.0, detail=0.0)
    first, *others = grains([photo, photo.copy(), photo, photo])
    assert all(np.array_equal(first, other) for other in others)
    film = grains([picture(noise=5.0, detail=0.0, seed=seed) for seed in range(4)])
    for before, after in pairwise(film):
        assert abs(np.corrcoef(before, after)[0, 1]) < 0.15


def test_grain_changes_as_slowly_as_the_pictures_noise():
    """Half of the noise's energy stays from frame to frame, as in a compressed video."""
    noises = [picture(noise=5.0, detail=0.0, seed=seed) for seed in range(5)]
    half = [((a.astype(float) + b) / 2).round().astype(np.uint8) for a, b in pairwise(noises)]
    before, after = grains(half)[1:3]
    assert 0.25 < np.corrcoef(before, after)[0, 1] < 0.75


def test_the_same_seed_gives_the_same_grain_and_reset_begins_it_again():
    film = [picture(noise=5.0, detail=0.0, seed=seed) for seed in range(3)]
    assert np.array_equal(grains(film), grains(film))
    matcher = DetailMatcher(sharpen=False)
    mouth = painted(picture(detail=0.0))
    first = [match(matcher, mouth, image, i / 25) for i, image in enumerate(film)]
    matcher.reset()
    assert np.array_equal(
        first, [match(matcher, mouth, image, i / 25) for i, image in enumerate(film)]
    )
    other = DetailMatcher(sharpen=False, seed=1)
    assert not np.array_equal(first[0], match(other, mouth, film[0]))


def coloured(red, green, blue):
    return np.full((SIZE, SIZE, 3), (red, green, blue), np.uint8)


def test_green_teeth_become_white_and_nothing_else_changes():
    skin = coloured(210, 150, 130)
    mouth = painted(coloured(175, 225, 185))
    mouth.rgb_weight[:, :60] = 0
    got = remove_green_cast(mouth, skin, REGION).image
    assert np.allclose(got[:, 60:], (204, 196, 185))
    assert np.array_equal(got[:, :60], mouth.image[:, :60])
    for colour in ((235, 225, 200), (190, 60, 60), (30, 20, 20)):
        same = painted(coloured(*colour))
        assert remove_green_cast(same, skin, REGION) is same


def test_a_green_haze_on_skin_gets_the_skin_s_colour():
    skin = coloured(200, 167, 90)
    mouth = painted(coloured(185, 190, 88))
    mouth.rgb_weight[:, :60] = 0
    got = remove_green_cast(mouth, skin, REGION).image
    assert np.array_equal(got[:, :60], mouth.image[:, :60])
    assert np.allclose(got[:, 60:] @ (1, -1, 0), 187.5 * 33 / 183.5 - 8, atol=0.1)
    assert np.allclose(got.mean(-1), mouth.image.mean(-1))
    for colour in ((150, 125, 68), (210, 175, 110), (90, 75, 40), (170, 120, 75)):
        same = painted(coloured(*colour))
        assert remove_green_cast(same, skin, REGION) is same


def test_in_green_light_teeth_are_green():
    teeth = painted(coloured(170, 200, 160))
    assert remove_green_cast(teeth, coloured(120, 140, 90), REGION) is teeth


def test_in_a_grey_picture_grey_paint_is_left():
    teeth = painted(coloured(190, 190, 190))
    assert remove_green_cast(teeth, coloured(150, 150, 150), REGION) is teeth
