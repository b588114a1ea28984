"""Idle motion of a real photo, checked for visible artefacts."""

from __future__ import annotations

from itertools import islice

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from talkinghead.features.faces.alignment import estimate_transform, invert
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.features.faces.tracker import box_centre
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.frame_sources import photo_frames
from talkinghead.predict.source.idle_motion import IdleMotion
from talkinghead.types import AVSpec, Box, Face

SPEC = AVSpec()
PHOTO = astronaut()
FPS = 25
CORNERS = ((33, 133, 159, 145), (362, 263, 386, 374))
"""Corners and lid centres of each eye."""


@pytest.fixture(scope="module")
def detector():
    return LiteRtDetector()


@pytest.fixture(scope="module")
def faces(detector):
    return detector.detect(PHOTO)


@pytest.fixture(scope="module")
def frames(faces):
    """Eight seconds of frames."""
    motion = IdleMotion(PHOTO, faces, seed=1)
    return [motion.at(index / FPS) for index in range(8 * FPS)]


def edge(image):
    return np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


def test_only_the_head_moves_and_motion_is_gradual_outside_blinks(faces, frames):
    closure = IdleMotion(PHOTO, faces, seed=1)._heads[0]._closure
    before = PHOTO
    for index, (image, _) in enumerate(frames):
        assert np.array_equal(edge(image), edge(PHOTO))
        assert np.array_equal(image[400:], PHOTO[400:])
        change = np.abs(image.astype(int) - (before if index else image))
        assert change.mean() < 0.5
        is_blink = closure((index - 1) / FPS) or closure(index / FPS)
        assert is_blink or np.percentile(change, 99.5) < 16
        before = image
    assert not np.array_equal(image, PHOTO)


def test_frames_depend_on_seed_and_time_only(faces, frames):
    again = IdleMotion(PHOTO, faces, seed=1)
    for index in (150, 20, 151, 0):
        assert np.array_equal(again.at(index / FPS)[0], frames[index][0])
    other = IdleMotion(PHOTO, faces, seed=2)
    assert not np.allclose(other.at(2.0)[1][0], frames[50][1][0], atol=1e-3)


def test_head_sways_smoothly_by_a_few_pixels(faces, frames):
    centre = np.array([*box_centre(faces[0].box), 1])
    positions = np.stack([moves[0] @ centre for _, moves in frames])
    away = np.linalg.norm(positions - centre[:2], axis=1)
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    assert 1 < away.max() < 6
    assert steps.max() < 0.25
    assert np.abs(np.diff(steps)).max() < 0.02


def test_eyes_blink(detector, faces):
    motion = IdleMotion(PHOTO, faces, seed=1)
    start_s = motion._heads[0]._blinks_s[0]

    def contrast(time_s):
        """Return the contrast in the eyes, which the white of open eyes increases."""
        image, (move,) = motion.at(time_s)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
        values = []
        for left, right, upper, lower in CORNERS:
            points = faces[0].points[[left, right, upper, lower]] @ move[:, :2].T + move[:, 2]
            x, y = points.mean(0).round().astype(int)
            values.append(grey[y - 2 : y + 3, x - 6 : x + 7].std())
        return np.mean(values)

    still, closed, opened = (contrast(start_s + dt) for dt in (-0.05, 0.12, 0.4))
    assert closed < 0.6 * still
    assert opened == pytest.approx(still, rel=0.2)


def test_transform_follows_the_head(detector, faces):
    options = SourceOptions(motion="idle", seed=1)
    frames = photo_frames(PHOTO, "photo", detector, SPEC, options)
    still = estimate_transform(faces[0].points, "mesh468", SPEC)
    tracked = faces[0]
    for frame in islice(frames, 0, 100, 4):
        assert np.array_equal(frame.reference.image, PHOTO)
        tracked = detector.track(frame.image, tracked)
        measured = estimate_transform(tracked.points, "mesh468", SPEC)
        mouths = [invert(t) @ np.array([128, 190, 1]) for t in (frame.transform, measured)]
        assert np.linalg.norm(mouths[0] - mouths[1]) < 1.6
    assert np.abs(frame.transform - still).max() > 0.5


def test_face_at_the_image_border_does_not_sway(faces):
    box = faces[0].box
    tight = np.ascontiguousarray(PHOTO[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)])
    points = faces[0].points - np.float32([int(box.x0), int(box.y0)])
    face = Face(Box(0, 0, tight.shape[1], tight.shape[0]), points, 1.0, "mesh468")
    motion = IdleMotion(tight, [face], seed=1)
    _, (move,) = motion.at(3.3)
    assert np.allclose(move, np.eye(2, 3), atol=1e-4)
