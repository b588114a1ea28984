"""What the reference of a video's shot is made of."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
from skimage.data import astronaut

from talkinghead.predict.source import reference_policy as module
from talkinghead.predict.source.reference_policy import add_references
from talkinghead.predict.source.source_frame import SourceFrame
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
    return next(iter(add_references(frames, SPEC, FPS))).reference


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


def turned(index, yaw, opening=0.0):
    return replace(frame(index, opening), pose=np.float32([yaw, 0, 0]))


def referred(frames):
    return list(add_references(frames, SPEC, FPS))


def test_a_head_that_turns_gets_a_reference_that_is_turned_alike():
    yaws = np.clip(np.arange(75) - 25, 0, 25)
    got = referred([turned(i, yaw) for i, yaw in enumerate(yaws)])
    turns = np.array([f.pose[0] - f.reference.pose[0] for f in got])
    assert np.abs(turns).max() < 10
    assert np.abs(turns[-10:]).max() < 5
    assert len({id(f.reference) for f in got}) > 2


def test_a_head_that_is_all_but_still_keeps_its_reference():
    shaking = np.random.default_rng(0).normal(0, 1, 75)
    openings = [1.0] * 75
    openings[60] = 0.0
    got = referred([turned(i, *of) for i, of in enumerate(zip(shaking, openings, strict=True))])
    assert len({id(f.reference) for f in got}) == 1


def test_a_head_that_turns_back_gets_the_reference_that_it_had():
    yaws = [0] * 40 + [20] * 40 + [0] * 40
    got = referred([turned(i, yaw) for i, yaw in enumerate(yaws)])
    assert len({id(f.reference) for f in got}) == 2
    assert got[-1].reference is got[0].reference


def test_of_faces_turned_alike_the_closed_mouth_is_the_reference():
    yaws = [0] * 40 + [20] * 40
    got = referred([turned(i, yaw, 0.2 if i != 50 else 0.0) for i, yaw in enumerate(yaws)])
    assert got[-1].reference.lips[10:, 1].max() == frame(50, 0.0).lips[10:, 1].max()


def test_one_reference_goes_over_into_the_next():
    got = referred([turned(i, yaw) for i, yaw in enumerate([0] * 40 + [20] * 40)])
    fading = [f for f in got if f.previous_reference]
    shares = [f.previous_reference.weight for f in fading]
    assert len(shares) >= 2
    assert all(0 < after < before < 1 for before, after in pairwise(shares))
    assert {f.previous_reference.reference for f in fading} == {got[0].reference}
    assert {f.reference for f in fading} == {got[-1].reference}
    assert fading[0].with_previous_reference.reference is got[0].reference


def test_no_more_references_are_kept_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(module, "_MAX_REFERENCES", 3)
    shot = module._Shot(SPEC, FPS)
    for index in range(8):
        shot.next(deque([turned(index, 20 * index)]))
        shot.next(deque([turned(index, 20 * index)] * 3))
    assert 1 < len(shot._known) <= 3
