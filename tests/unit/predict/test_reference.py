"""What the reference of a video's shot is made of."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from skimage.data import astronaut

from talkinghead.predict.source import SourceFrame
from talkinghead.predict.source.reference import with_references
from talkinghead.types import AVSpec

SPEC = AVSpec()
FPS = Fraction(25)
PHOTO = astronaut()
LIPS = np.stack([np.linspace(205, 245, 20), np.full(20, 160)], axis=1).astype(np.float32)


def frame(index, opening=1.0, aside=0, noise=6):
    """The astronaut, `aside` pixels to the right, in a camera's noise."""
    moved = np.roll(PHOTO, aside, axis=1)
    grain = np.random.default_rng(index).normal(0, noise, PHOTO.shape)
    transform = np.array([[1.6, 0, -230 - 1.6 * aside], [0, 1.6, -60]], np.float32)
    lips = LIPS + np.array([aside, 0], np.float32)
    lips[10:, 1] += 10 * opening
    return SourceFrame(
        np.clip(moved + grain, 0, 255).astype(np.uint8),
        index / FPS,
        1 / FPS,
        transform=transform,
        opening=opening,
        lips=lips,
    )


def reference_of(frames):
    return next(iter(with_references(frames, SPEC, FPS))).reference


def error(image):
    """In the face, and beside it."""
    apart = np.abs(image.astype(float) - PHOTO)
    return apart[60:180, 160:290].mean(), apart[300:, :100].mean()


def test_the_references_noise_is_averaged_out_where_the_face_is():
    frames = [frame(i, opening=0.1 * i / 30, aside=3 * (i % 5)) for i in range(30)]
    face, beside = error(reference_of(frames).image)
    alone, noise = error(frames[0].image)
    assert face < 0.55 * alone
    assert beside == noise


def test_other_lips_are_not_averaged():
    frames = [frame(0)] + [frame(i, opening=2.0) for i in range(1, 30)]
    assert (reference_of(frames).image == frames[0].image).all()


def test_a_frame_in_which_the_face_fades_is_not_averaged():
    frames = [frame(0)] + [replace(frame(i), strength=0.5) for i in range(1, 30)]
    assert (reference_of(frames).image == frames[0].image).all()


def test_a_face_at_the_pictures_edge_is_averaged_as_far_as_it_is_seen():
    def cut(whole):
        assert whole.transform is not None
        shift = np.array([[0, 0, 1.6 * 200], [0, 0, 1.6 * 30]], np.float32)
        moved = replace(whole, image=whole.image[30:, 200:].copy())
        return replace(moved, transform=whole.transform + shift, lips=whole.lips - [200, 30])

    frames = [cut(frame(i)) for i in range(30)]
    reference = reference_of(frames)
    truth = PHOTO[30:, 200:].astype(float)
    inside = (slice(40, 150), slice(0, 80))
    before = np.abs(frames[0].image - truth)[inside].mean()
    assert np.abs(reference.image - truth)[inside].mean() < 0.55 * before
