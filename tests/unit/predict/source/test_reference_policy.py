from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from talkinghead.predict.source import reference_policy
from talkinghead.predict.source.reference_policy import ClosestPosePolicy, add_references
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import AVSpec

SPEC = AVSpec()
FPS = Fraction(25)
PHOTO = astronaut()
LIPS = np.stack([np.linspace(205, 245, 20), np.full(20, 160)], axis=1).astype(np.float32)
TRANSFORM = np.float32([[1.6, 0, -230], [0, 1.6, -60]])


def noisy_frame(index, opening=1.0, shift=0):
    """Return the astronaut with camera noise, `shift` pixels to the right."""
    noise = np.random.default_rng(index).normal(0, 6, PHOTO.shape)
    image = np.clip(np.roll(PHOTO, shift, axis=1) + noise, 0, 255).astype(np.uint8)
    frame = small_frame(index, opening=opening)
    transform = TRANSFORM - np.float32([[0, 0, 1.6 * shift], [0, 0, 0]])
    lips = frame.lips + np.float32([shift, 0])
    return replace(frame, image=image, transform=transform, lips=lips, pose=None)


def small_frame(index, yaw_deg=0.0, opening=0.0):
    """Return a frame whose pixels are its index."""
    lips = LIPS.copy()
    lips[10:, 1] += 10 * opening
    return SourceFrame(
        np.full((4, 4, 3), index, np.uint8),
        index / FPS,
        1 / FPS,
        transform=TRANSFORM,
        opening=opening,
        lips=lips,
        pose=np.float32([yaw_deg, 0, 0]),
    )


def referenced(frames):
    return list(add_references(frames, SPEC, FPS))


def references_at_yaws(yaws_deg):
    """Return the frames of a head with these yaws, with their references."""
    return referenced([small_frame(i, yaw_deg) for i, yaw_deg in enumerate(yaws_deg)])


def reference_image(frames):
    return referenced(frames)[0].reference.image


@pytest.mark.parametrize(("x", "y"), [(0, 0), (200, 30)])
def test_noise_of_reference_is_reduced_in_the_face(x, y):
    """In the second case the image's border cuts off a part of the face."""
    frames = []
    for i in range(30):
        frame = noisy_frame(i, opening=0.1 * i / 30, shift=3 * (i % 5))
        transform = frame.transform + np.float32([[0, 0, 1.6 * x], [0, 0, 1.6 * y]])
        image, lips = frame.image[y:, x:].copy(), frame.lips - np.float32([x, y])
        frames.append(replace(frame, image=image, transform=transform, lips=lips))
    image = reference_image(frames)
    before, after = (np.abs(i.astype(float) - PHOTO[y:, x:]) for i in (frames[0].image, image))
    face = slice(60, 150), slice(max(160 - x, 0), 290 - x)
    assert after[face].mean() < 0.55 * before[face].mean()
    assert np.array_equal(image[300:, -100:], frames[0].image[300:, -100:])


def test_noise_of_a_large_reference_is_reduced_around_the_mouth():
    """Only the mouth is used at full size."""
    frames = []
    for index in range(8):
        frame = noisy_frame(index)
        image = cv2.resize(PHOTO[60:210, 140:310], None, fx=5, fy=5)
        noise = np.random.default_rng(index).normal(0, 6, image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
        linear = TRANSFORM[:, :2] / 5
        offset = TRANSFORM[:, :2] @ (140, 60) + TRANSFORM[:, 2]
        transform = np.column_stack([linear, offset]).astype(np.float32)
        lips = (frame.lips - np.float32([140, 60])) * 5
        frames.append(replace(frame, image=image, transform=transform, lips=lips))
    image, first = reference_image(frames), frames[0].image
    clean = cv2.resize(PHOTO[60:210, 140:310], None, fx=5, fy=5).astype(float)
    before, after = np.abs(first - clean), np.abs(image - clean)
    mouth, eyes = (slice(420, 580), slice(300, 560)), (slice(10, 100), slice(300, 560))
    assert after[mouth].mean() < 0.6 * before[mouth].mean()
    assert np.array_equal(image[eyes], first[eyes])


def test_frames_with_other_lips_and_fading_frames_are_not_averaged():
    first = noisy_frame(0)
    open_mouths = [noisy_frame(i, opening=2.0) for i in range(1, 30)]
    fading = [replace(noisy_frame(i), strength=0.5) for i in range(1, 30)]
    for others in (open_mouths, fading):
        assert (reference_image([first, *others]) == first.image).all()


def test_reference_follows_head_pose():
    frames = references_at_yaws(np.clip(np.arange(75) - 25, 0, 25))
    turns_deg = np.array([f.pose[0] - f.reference.pose[0] for f in frames])
    assert np.abs(turns_deg).max() < 10
    assert np.abs(turns_deg[-10:]).max() < 5
    assert len({id(f.reference) for f in frames}) > 2


def test_reference_of_a_still_head_does_not_change():
    yaws_deg = np.random.default_rng(0).normal(0, 1, 75)
    frames = [small_frame(i, yaw, i != 60) for i, yaw in enumerate(yaws_deg)]
    assert len({id(f.reference) for f in referenced(frames)}) == 1


def test_most_closed_mouth_of_the_window_becomes_the_reference():
    """Within the first second, and among frames of the same pose after a turn."""
    openings = {12: 0.1, 40: 0.0}
    frames = referenced([small_frame(i, 0, openings.get(i, 0.9)) for i in range(60)])
    assert {f.reference.image[0, 0, 0] for f in frames} == {12}
    yaws_deg = [0] * 40 + [20] * 40
    frames = [small_frame(i, yaw, 0.2 * (i != 50)) for i, yaw in enumerate(yaws_deg)]
    assert referenced(frames)[-1].reference.image[0, 0, 0] == 50


def test_previous_reference_fades_out_and_is_used_again_when_head_turns_back():
    frames = references_at_yaws([0] * 40 + [20] * 40 + [0] * 40)
    assert len({id(f.reference) for f in frames}) == 2
    assert frames[-1].reference is frames[0].reference
    del frames[60:]
    fading = [f for f in frames if f.previous_reference]
    weights = [f.previous_reference.weight for f in fading]
    assert len(weights) >= 2
    assert all(0 < after < before < 1 for before, after in pairwise(weights))
    assert {f.previous_reference.reference for f in fading} == {frames[0].reference}
    assert {f.reference for f in fading} == {frames[-1].reference}
    assert fading[0].with_previous_reference.reference is frames[0].reference


def test_reference_is_selected_again_after_a_cut_and_a_long_absence():
    cut = [replace(small_frame(i), starts_shot=i == 10) for i in range(51)]
    assert [f.reference.image[0, 0, 0] for f in referenced(cut)] == [0] * 10 + [10] * 41
    absent = range(30, 70)
    frames = [
        SourceFrame(PHOTO[:4, :4], i / FPS, 1 / FPS) if i in absent else small_frame(i)
        for i in range(100)
    ]
    references = [f.reference.image[0, 0, 0] for f in referenced(frames) if f.reference]
    assert references == [0] * 30 + [70] * 30


def test_number_of_stored_images_is_limited(monkeypatch):
    monkeypatch.setattr(reference_policy, "_MAX_REFERENCE_BYTES", 3 * 48)
    num_read = 0

    def frames():
        nonlocal num_read
        for index in range(50):
            num_read += 1
            yield small_frame(index)

    next(add_references(frames(), SPEC, FPS))
    assert num_read == 3
    policy = ClosestPosePolicy(SPEC, FPS)
    for index in range(8):
        for _ in range(5):
            policy.select([small_frame(index, 20 * index)])
    assert len(policy._references) == 3


def test_first_reference_is_neither_dark_nor_covered():
    clear = [small_frame(i, opening=0.02) for i in range(25)]
    frames = [replace(frame, contrast=10.0, covering=0.1) for frame in clear]
    for index in range(12):
        dark = replace(frames[index], contrast=2.0, opening=0.0)
        covered = replace(frames[index + 12], covering=0.6, opening=0.0)
        frames[index], frames[index + 12] = dark, covered
    assert reference_image(frames)[0, 0, 0] == 24


def test_reference_shows_no_object_that_passes():
    usual, hand = np.zeros((100, 3), np.float32), np.zeros((100, 3), np.float32)
    hand[:30] = 0.5
    frames = [
        replace(small_frame(i, opening=0.02 * (i < 20)), colours=hand if i >= 20 else usual)
        for i in range(25)
    ]
    assert reference_image(frames)[0, 0, 0] < 20


def test_caption_is_in_no_reference_before_it_appears():
    """It stays, and makes the image seem sharper."""
    plain, captioned = np.zeros((100, 3), np.float32), np.zeros((100, 3), np.float32)
    captioned[:30] = 0.5
    frames = [
        replace(small_frame(i), contrast=10.0, colours=plain)
        if i < 20
        else replace(small_frame(i), contrast=30.0, colours=captioned)
        for i in range(60)
    ]
    assert all(frame.reference.image[0, 0, 0] < 20 for frame in referenced(frames)[:20])


def test_dark_reference_is_replaced_when_the_light_is_switched_on():
    frames = [replace(small_frame(i), contrast=2.0 if i < 40 else 10.0) for i in range(80)]
    shown = [frame.reference.image[0, 0, 0] for frame in referenced(frames)]
    assert shown[0] < 40 <= shown[45]
    assert len(set(shown)) == 2


def test_few_images_are_averaged_for_large_faces(monkeypatch):
    counts = []

    def averaged(image, others):
        counts.append(len(list(others)))
        return image

    monkeypatch.setattr(reference_policy, "average_onto", averaged)
    reference_image([noisy_frame(i) for i in range(10)])
    monkeypatch.setattr(reference_policy, "_LARGE_FACE_PX", 1)
    reference_image([noisy_frame(i) for i in range(10)])
    assert counts == [9, 2]
