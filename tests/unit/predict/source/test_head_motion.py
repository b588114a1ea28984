"""A photo that lives: a real face, looked at where it may be seen to be a trick."""

from __future__ import annotations

from itertools import islice, pairwise

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from talkinghead.features.faces.alignment import estimate_transform, invert
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.predict.source.idle_motion import IdleMotion
from talkinghead.predict.source.source_frame import SourceOptions
from talkinghead.predict.source.frame_sources import photo_frames
from talkinghead.types import AVSpec

SPEC = AVSpec()
FPS = 25
CORNERS = ((33, 133, 159, 145), (362, 263, 386, 374))
"""Of each eye: its corners, and the middles of its upper and lower lid."""


@pytest.fixture(scope="module")
def detector():
    return LiteRtDetector()


@pytest.fixture(scope="module")
def photo():
    return astronaut()


@pytest.fixture(scope="module")
def faces(detector, photo):
    return detector.detect(photo)


@pytest.fixture(scope="module")
def pictures(photo, faces):
    """Eight seconds."""
    motion = IdleMotion(photo, faces, seed=1)
    return [motion.at(index / FPS) for index in range(8 * FPS)]


def edge(image):
    return np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


def test_the_pictures_edge_and_what_is_far_from_the_head_stay(photo, pictures):
    for image, _ in pictures:
        assert image.shape == photo.shape
        assert np.array_equal(edge(image), edge(photo))
        assert np.array_equal(image[400:], photo[400:])
    assert any(not np.array_equal(image, photo) for image, _ in pictures)


def test_the_same_seed_gives_the_same_pictures_in_any_order(photo, faces, pictures):
    again = IdleMotion(photo, faces, seed=1)
    for index in (150, 20, 151, 0):
        assert np.array_equal(again.at(index / FPS)[0], pictures[index][0])
    other = IdleMotion(photo, faces, seed=2)
    assert not np.allclose(other.at(2.0)[1][0], pictures[50][1][0], atol=1e-3)


def test_the_head_sways_a_few_pixels_and_smoothly(faces, pictures):
    box = faces[0].box
    middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, 1])
    places = np.stack([moves[0] @ middle for _, moves in pictures])
    away = np.linalg.norm(places - middle[:2], axis=1)
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert 1 < away.max() < 6
    assert steps.max() < 0.25
    turns = np.abs(np.diff(steps))
    assert turns.max() < 0.02


def test_no_fold_and_no_seam_in_the_field(photo, faces):
    """A picture of straight lines stays one of smooth lines: no step between neighbours."""
    ramp = np.tile(np.linspace(0, 255, 512).astype(np.uint8)[None, :, None], (512, 1, 3))
    for picture in (ramp, np.ascontiguousarray(ramp.transpose(1, 0, 2))):
        motion = IdleMotion(picture, faces, seed=1)
        motion._heads[0]._eyes.clear()
        for time_s in np.arange(0, 8, 0.5):
            moved = motion.at(float(time_s))[0].astype(int)
            assert max(np.abs(np.diff(moved, axis=axis)).max() for axis in (0, 1)) <= 2


def test_eyes_close_and_open_again(detector, photo, faces):
    motion = IdleMotion(photo, faces, seed=1)
    start_s = motion._heads[0]._blinks_s[0]
    closure = [motion._heads[0]._closure(start_s + dt) for dt in np.arange(-0.1, 0.5, 0.01)]
    assert closure[0] == closure[-1] == 0
    assert max(closure) == 1
    assert np.abs(np.diff(closure)).max() < 0.2

    def white(time_s):
        """How bright the eyes are, less the skin above them: whites are seen in open ones."""
        image, (move,) = motion.at(time_s)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
        values = []
        for left, right, upper, lower in CORNERS:
            points = faces[0].points[[left, right, upper, lower]] @ move[:, :2].T + move[:, 2]
            x, y = points.mean(0).round().astype(int)
            values.append(grey[y - 2 : y + 3, x - 6 : x + 7].std())
        return np.mean(values)

    still, closed, opened = (white(start_s + dt) for dt in (-0.05, 0.12, 0.4))
    assert closed < 0.6 * still
    assert opened == pytest.approx(still, rel=0.2)


def test_outside_of_blinks_nothing_jumps(photo, faces, pictures):
    motion = IdleMotion(photo, faces, seed=1)
    for index, ((before, _), (after, _)) in enumerate(pairwise(pictures)):
        moments = (index / FPS, (index + 1) / FPS)
        change = np.abs(after.astype(int) - before)
        blinks = any(motion._heads[0]._closure(moment) for moment in moments)
        assert change.mean() < 0.5
        assert blinks or np.percentile(change, 99.5) < 16


def test_the_transform_moves_with_the_head(detector, photo, faces):
    options = SourceOptions(motion="idle", seed=1)
    frames = photo_frames(photo, "photo", detector, SPEC, options)
    still = estimate_transform(faces[0].points, "mesh468", SPEC)
    tracked = faces[0]
    for frame in islice(frames, 0, 100, 4):
        assert np.array_equal(frame.reference.image, photo)
        tracked = detector.track(frame.image, tracked)
        seen = estimate_transform(tracked.points, "mesh468", SPEC)
        places = [invert(t) @ np.array([128, 190, 1]) for t in (frame.transform, seen)]
        assert np.linalg.norm(places[0] - places[1]) < 1.6
    assert np.abs(frame.transform - still).max() > 0.5


def test_a_face_at_the_pictures_edge_does_not_sway(photo, faces):
    box = faces[0].box
    tight = np.ascontiguousarray(photo[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)])
    face = type(faces[0])(
        type(box)(0, 0, tight.shape[1], tight.shape[0]),
        faces[0].points - np.float32([int(box.x0), int(box.y0)]),
        1.0,
        "mesh468",
    )
    motion = IdleMotion(tight, [face], seed=1)
    _, (move,) = motion.at(3.3)
    assert np.allclose(move, np.eye(2, 3), atol=1e-4)


def test_a_photo_is_still_unless_it_is_asked_to_move(detector, photo):
    first, second = islice(photo_frames(photo, "photo", detector, SPEC), 2)
    assert first.image is second.image is photo
    assert first.transform is second.transform
