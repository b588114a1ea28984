"""Detection of cuts and gradual shot changes in synthetic sequences of real images."""

import cv2
import numpy as np
import pytest
import skimage.data

from talkinghead.features.shot_detection import ShotDetector

PERSON = skimage.data.astronaut()[:300, 100:400].astype(np.float32)
OTHER = skimage.data.coffee()[60:360, 150:450].astype(np.float32)
NUM_STILL = 15
NOISE = np.random.default_rng(0).standard_normal((7, *PERSON.shape), np.float32)
"""Noise of consecutive frames, repeated because making it takes longer than the detection."""


def shot_starts(change):
    """Return (frame, num_mixed) of the shots in a still, a change and another still."""
    frames = [*[PERSON] * NUM_STILL, *change, *[change[-1]] * NUM_STILL]
    detector, starts = ShotDetector(), []
    for number, frame in enumerate(frames):
        noisy = frame + 3 * NOISE[number % len(NOISE)]
        if detector.update(noisy.clip(0, 255).astype(np.uint8)):
            starts.append((number - NUM_STILL, detector.num_mixed))
    return starts


def dissolve(weight):
    return PERSON + (OTHER - PERSON) * weight


def wipe(weight):
    return np.where((np.arange(300) < 300 * weight)[None, :, None], OTHER, PERSON)


def push(weight):
    first = round(300 * weight)
    return np.concatenate([PERSON, OTHER], 1)[:, first : first + 300]


@pytest.mark.parametrize("transition", [dissolve, wipe])
@pytest.mark.parametrize("num_frames", [12, 40])
def test_gradual_change_is_detected_at_its_end(transition, num_frames):
    change = [transition(k / num_frames) for k in range(1, num_frames + 1)]
    # The first frame of a quick wipe may be a cut too.
    *_, (start, num_mixed) = starts = shot_starts(change)
    assert len(starts) <= 2
    assert num_frames - 1 <= start <= num_frames + 2
    assert start - 2 <= num_mixed <= start + 2


def test_cut_is_detected_at_once():
    assert shot_starts([OTHER]) == [(0, 0)]


def test_push_has_a_last_cut_at_its_end():
    starts = shot_starts([push(k / 12) for k in range(1, 13)])
    assert starts[-1] == (12, 12)


def test_fade_through_black_starts_a_shot_after_black():
    fade = [*(PERSON * (1 - k / 10) for k in range(1, 11)), *(OTHER * k / 10 for k in range(1, 11))]
    ((start, num_mixed),) = shot_starts(fade)
    assert 10 < start < 17
    assert num_mixed == 0


SOFT = cv2.GaussianBlur(PERSON, (0, 0), 9)
"""A person whose motion changes an image nearly as a dissolve does."""


def nod(lowered):
    """Return the person with the head moved by up to 20 pixels before a static background."""
    y, x = np.mgrid[:300, :300].astype(np.float32)
    near = np.exp(-((((x - 125) / 90) ** 2 + ((y - 110) / 110) ** 2) ** 2))
    moved = x - 8 * lowered * near, y - 20 * lowered * near
    return cv2.remap(SOFT, *moved, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


CHANGES_IN_A_SHOT = {
    "lamp": [PERSON * (1 - 0.7 * k / 12) for k in range(1, 13)],
    "flash": [np.minimum(PERSON * 1.8 + 60, 255), PERSON],
    "coloured light": [
        PERSON @ np.float32([[1 - w, w, 0], [0, 1 - w, w], [w, 0, 1 - w]])
        for w in np.linspace(0, 0.6, 8)
    ],
    "motion": [np.roll(PERSON, 2 * k, axis=1) for k in range(20)],
    "zoom": [cv2.resize(PERSON[k : 300 - k, k : 300 - k], (300, 300)) for k in range(0, 60, 2)],
}


@pytest.mark.parametrize("change", CHANGES_IN_A_SHOT.values(), ids=CHANGES_IN_A_SHOT)
def test_light_and_motion_do_not_start_a_shot(change):
    assert shot_starts(change) == []


@pytest.mark.parametrize("num_frames", [6, 16])
def test_nod_does_not_start_a_shot(num_frames):
    still = [SOFT] * NUM_STILL
    assert shot_starts([*still, *(nod(k / num_frames) for k in range(1, num_frames + 1))])[1:] == []


SMALL_PERSON, SMALL_OTHER = (cv2.resize(image, (96, 96)) for image in (PERSON, OTHER))


def bursts(num_frames):
    """Return a blurred person before a camera that moves by 1 pixel a frame, at times by 4."""
    blurred = cv2.GaussianBlur(SMALL_PERSON, (0, 0), 3)
    steps = np.where(np.arange(num_frames) % 12 < 8, 1, 4)
    return [np.roll(blurred, k, axis=1) for k in np.cumsum(steps)]


def detect_in_repeated(frames, fps, container_fps):
    """Return (frame, num_mixed), both in `frames`, which are repeated for a higher frame rate."""
    rng, detector, starts = np.random.default_rng(0), ShotDetector(), []
    frames = [frame + rng.normal(0, 1, frame.shape) for frame in frames]
    shown = (np.arange(len(frames) * container_fps / fps) * fps / container_fps).astype(int)
    for position, number in enumerate(shown):
        noisy = frames[number] + rng.normal(0, 0.5, frames[number].shape)
        if detector.update(noisy.clip(0, 255).astype(np.uint8)):
            starts.append((number, number - shown[position - detector.num_mixed]))
    return starts


RATES = [(25, 60), (24, 60), (15, 60), (12.5, 50), (25, 75)]


@pytest.mark.parametrize(("fps", "container_fps"), RATES)
def test_motion_in_repeated_frames_does_not_start_a_shot(fps, container_fps):
    assert detect_in_repeated(bursts(48), fps, container_fps) == []


@pytest.mark.parametrize(("fps", "container_fps"), RATES)
def test_dissolve_in_repeated_frames_is_detected_at_its_end(fps, container_fps):
    moving = bursts(20)
    change = [moving[-1] + (SMALL_OTHER - moving[-1]) * k / 12 for k in range(1, 13)]
    frames = [*moving, *[moving[-1]] * 3, *change, *[SMALL_OTHER] * 9]
    ((start, num_mixed),) = detect_in_repeated(frames, fps, container_fps)
    assert 34 <= start <= 37
    assert start - 23 - 2 <= num_mixed <= start - 23 + 2


OTHER_POSE = PERSON + (OTHER - PERSON) * 0.3


@pytest.mark.parametrize(
    "progress",
    [
        pytest.param([0.25, 0.5, 0.75, 1], id="frames between predicted frames"),
        pytest.param([0.03, 0.1, 0.17, 0.25, 0.34, 0.4, 0.44, 1], id="key frame"),
    ],
)
def test_artefacts_of_hard_compression_are_not_mixtures_of_shots(progress):
    starts = shot_starts([PERSON + (OTHER_POSE - PERSON) * p for p in progress])
    assert all(num_mixed == 0 for _, num_mixed in starts)


def test_key_frame_that_corrects_accumulated_errors_does_not_start_a_shot():
    rng = np.random.default_rng(1)
    errors = cv2.resize(rng.normal(0, 14, (32, 32, 3)), (300, 300), interpolation=cv2.INTER_NEAREST)
    assert shot_starts([*(PERSON + errors * k / 24 for k in range(25)), PERSON]) == []


def test_motion_in_frames_that_are_shown_for_a_quarter_of_a_second_does_not_start_a_shot():
    blurred = cv2.GaussianBlur(SMALL_PERSON, (0, 0), 3)
    moving = [np.roll(blurred, 3 * k, axis=1) for k in range(24)]
    assert detect_in_repeated(moving, 4, 24) == []
