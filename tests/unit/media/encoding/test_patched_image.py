"""Patched images equal the images that they describe."""

import numpy as np

from talkinghead.media.encoding.patched_image import Patch, PatchedImage


def patch(y, x, height, width, level):
    return Patch(y, x, np.full((height, width, 3), level, np.uint8))


def test_later_patches_cover_earlier_ones():
    base = np.zeros((8, 10, 3), np.uint8)
    expected = base.copy()
    image = PatchedImage(base)
    assert image.to_array() is base
    for y, x, height, width, level in ((1, 1, 4, 4, 50), (3, 3, 4, 5, 90), (0, 8, 8, 2, 30)):
        image = image.with_patch(patch(y, x, height, width, level))
        expected[y : y + height, x : x + width] = level
    assert np.array_equal(image.to_array(), expected)
    assert not base.any()
    for rows, columns in ((slice(0, 8), slice(0, 10)), (slice(2, 5), slice(4, 9))):
        assert np.array_equal(image.crop(rows, columns), expected[rows, columns])


def test_crop_without_a_patch_is_a_view_of_the_base():
    image = PatchedImage(np.zeros((8, 8, 3), np.uint8)).with_patch(patch(0, 0, 3, 3, 9))
    assert np.shares_memory(image.crop(slice(3, 6), slice(0, 4)), image.base)
    assert not np.shares_memory(image.crop(slice(2, 6), slice(0, 4)), image.base)


def test_covered_patches_are_dropped():
    image = PatchedImage(np.zeros((8, 8, 3), np.uint8))
    for level in (1, 2, 3):
        image = image.with_patch(patch(2, 2, 3, 3, level))
    assert len(image.patches) == 1
    assert len(image.with_patch(patch(2, 2, 2, 2, 4)).patches) == 2
