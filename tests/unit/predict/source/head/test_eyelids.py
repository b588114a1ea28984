"""Lids of the eyes in a photo."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from talkinghead.features.faces.detector import build_detector
from talkinghead.media.reader import read_image
from talkinghead.paths import demo_face
from talkinghead.predict.source.head.eyelids import _EYES, _curve, find_lids


@pytest.mark.parametrize("num_points", [4, 9])
def test_curve_equals_that_of_scipy(num_points):
    rng = np.random.default_rng(num_points)
    for number in range(60):
        x, y = np.cumsum(rng.uniform(0.1, 3, num_points)), rng.normal(0, 2, num_points)
        y = np.cumsum(np.abs(y)) if number % 2 else y
        at = rng.uniform(x[0], x[-1], 30)
        found = _curve(np.stack([x, y]), at)
        assert np.allclose(found, PchipInterpolator(x, y)(at), atol=1e-9)


@pytest.mark.parametrize("has_glasses", [False, True])
def test_rim_of_glasses_does_not_move_with_the_lid(has_glasses):
    image = read_image(demo_face())
    image = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    face = build_detector("litert").detect(image)[0]
    rims = np.zeros(image.shape[:2], np.uint8)
    for upper, _, brow, _ in _EYES[face.topology]:
        left, middle, right = (face.points[upper[index]] for index in (0, len(upper) // 2, -1))
        # A thick line half-way between the lid and the eyebrow.
        up = 0.35 * (face.points[brow] - middle)
        line = np.rint(
            [left + up + (left - right) / 4, middle + up, right + up + (right - left) / 4]
        )
        cv2.polylines(rims, [line.astype(np.int32)], False, 255, 7)
    worn = image.copy()
    if has_glasses:
        worn[rims > 0] = 15
    closed, eyes = worn.copy(), find_lids(worn, face)
    for upper, _ in eyes:
        assert upper.has_rim == has_glasses
        upper.move(closed, 1.0)
    if has_glasses:
        assert np.abs(closed.astype(int) - worn)[rims > 0].max() <= 2
        for upper, _ in eyes:
            on_eye = (upper.depth > 0.2 * upper.height) & (upper.depth < 0.8 * upper.height)
            light = [part[upper.rows, upper.columns][on_eye].mean() for part in (worn, closed)]
            assert light[1] > light[0] + 30


def test_lids_of_eyes_in_shadow_are_no_dark_patches():
    image = read_image(demo_face())
    image = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    face = build_detector("litert").detect(image)[0]
    shadow = np.zeros(image.shape[:2], np.float32)
    for upper, _, brow, _ in _EYES[face.topology]:
        # The shadow of the brow, which ends at the eye.
        line = np.concatenate([face.points[list(upper)], face.points[[brow]]])
        cv2.fillConvexPoly(shadow, cv2.convexHull(np.rint(line).astype(np.int32)), 1.0)
    shadow = cv2.GaussianBlur(shadow, (0, 0), 4)
    dark = np.rint(image * (1 - 0.75 * shadow[..., None])).astype(np.uint8)
    closed = dark.copy()
    for upper, _ in find_lids(dark, face):
        upper.move(closed, 1.0)
        lid = closed[upper.rows, upper.columns].mean(2)
        middle = (upper.depth > 0.4 * upper.height) & (upper.depth < 0.7 * upper.height)
        assert lid[middle].mean() > 0.6 * upper.skin_colour.mean()
        lashes = np.abs(upper.depth - upper.travel) < 0.1 * upper.height
        assert lid[lashes].mean() < lid[middle].mean()


@pytest.mark.parametrize("light", [1.0, 1.4])
def test_lids_below_grey_or_shining_skin_are_no_patches(light):
    """The skin of a deep-set eye shows the colour of the brow, or a highlight."""
    image = read_image(demo_face())
    image = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    face = build_detector("litert").detect(image)[0]
    above = np.zeros(image.shape[:2], np.float32)
    for upper, _, brow, _ in _EYES[face.topology]:
        line = np.concatenate([face.points[list(upper)], face.points[[brow]]])
        cv2.fillConvexPoly(above, cv2.convexHull(np.rint(line).astype(np.int32)), 1.0)
    above = cv2.GaussianBlur(above, (0, 0), 4)[..., None]
    grey = light * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    grey_image = np.rint((1 - above) * image + above * grey).clip(0, 255).astype(np.uint8)
    closed = grey_image.copy()
    for upper, _ in find_lids(grey_image, face):
        upper.move(closed, 1.0)
        middle = (upper.depth > 0.2 * upper.height) & (upper.depth < 0.7 * upper.height)
        lid = closed[upper.rows, upper.columns][middle].mean(0)
        relative = lid / upper.skin_colour[middle].mean(0)
        assert np.ptp(relative) < 0.06
        assert 0.8 < relative.mean() < 1.1


def test_lids_without_a_shadow_keep_their_colours():
    image = read_image(demo_face())
    image = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    face = build_detector("litert").detect(image)[0]
    for upper, _ in find_lids(image, face):
        images = [image.copy(), image.copy()]
        upper.move(images[0], 0.8)
        replace(upper, skin_colour=None).move(images[1], 0.8)
        assert np.abs(np.subtract(*images, dtype=int)).mean() < 0.02


def test_lashes_on_the_skin_do_not_become_streaks_on_the_lid():
    image = read_image(demo_face())
    image = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    face = build_detector("litert").detect(image)[0]
    lashes, eyes = image.copy(), find_lids(image, face)
    for upper, _ in eyes:
        above = (upper.depth > -0.8 * upper.skin) & (upper.depth < 0)
        lashes[upper.rows, upper.columns][above & (upper.xy[..., 0] % 12 < 2)] //= 2
    plain = image.copy()
    for upper, _ in eyes:
        upper.move(lashes, 1.0)
        upper.move(plain, 1.0)
        lid = (upper.depth > 0) & (upper.depth < upper.travel - 0.5 * upper.height)
        darker = np.subtract(plain, lashes, dtype=int)[upper.rows, upper.columns][lid]
        assert np.percentile(darker, 95) < 10
        # The edge of the lid is still dark.
        edge = np.abs(upper.depth - upper.travel) < 0.1 * upper.height
        region = lashes[upper.rows, upper.columns]
        assert region[edge].mean() < 0.8 * region[lid].mean()
