"""A real face that is moved, turned, hidden and lost on purpose: where it is, is known."""

from __future__ import annotations

from fractions import Fraction
from itertools import groupby

import cv2
import numpy as np
import pytest
import skimage.data

from talkinghead.features.faces.alignment import (
    RIGID_POINTS,
    estimate_transform,
    invert,
    transform_scale,
)
from talkinghead.features.faces.head_pose import _FACE_CM as MODEL
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.features.faces.tracker import FaceTracker, FromTheLeft, MultiTracker
from talkinghead.predict.source.reference_policy import add_references
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.predict.source.face_tracks import (
    align_faces,
    fade_faces,
    interleave_tracks,
    track_faces,
    track_face,
)
from talkinghead.types import AVSpec, Box, Face

SPEC = AVSpec()
FPS = Fraction(25)
CENTRE = np.array([225.0, 120.0])
EYES, MOUTH = np.array([128, 85, 1.0]), np.array([128, 190, 1.0])
"""In the canonical face."""
FACE_WIDTH = 96
"""Of the astronaut, in pixels of the photo."""


@pytest.fixture(scope="module")
def detector():
    return LiteRtDetector()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def truth(detector, astronaut):
    """From the photo's pixels to the canonical face."""
    face = detector.track(astronaut, detector.detect(astronaut)[0])
    return estimate_transform(face.points, face.topology, SPEC)


@pytest.fixture(scope="module")
def room():
    return cv2.resize(skimage.data.coffee(), (960, 540))


def placed(x, y, scale=1.0, degrees=0.0):
    """The map that puts the photo's face at (x, y) of the room."""
    angle = np.radians(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, np.array([x, y]) - linear @ CENTRE])


def paste(room, astronaut, *moves):
    head = np.zeros(astronaut.shape[:2], np.float32)
    cv2.ellipse(head, (225, 115), (95, 105), 0, 0, 360, 1, -1)
    head = cv2.GaussianBlur(head, (0, 0), 4)
    picture = room.astype(np.float32)
    for move in moves:
        share = cv2.warpAffine(head, move, (960, 540))[..., None]
        picture += share * (cv2.warpAffine(astronaut, move, (960, 540)) - picture)
    return picture.astype(np.uint8)


def as_frames(pictures):
    return [
        SourceFrame(image, i / FPS, 1 / FPS, file_time_s=i / FPS) for i, image in enumerate(pictures)
    ]


def follow(detector, pictures, **options):
    sightings = track_face(as_frames(pictures), FaceTracker(detector, **options))
    return list(add_references(fade_faces(align_faces(sightings, SPEC, FPS), FPS), SPEC, FPS))


def error(frame, move, truth):
    """How far eyes and mouth are from where they should be, in percent of the face's width."""
    should, found = move @ np.vstack([invert(truth), [0, 0, 1]]), invert(frame.transform)
    away = max(np.linalg.norm(found @ place - should @ place) for place in (EYES, MOUTH))
    return 100 * away / (FACE_WIDTH * np.hypot(*move[:, 0]))


SECONDS = np.arange(50) / 25
MOTIONS = {
    "still": ([(480, 270)] * 50, 1.5),
    "talks": ([(480 + 40 * np.sin(np.pi * t), 270 + 6 * np.sin(5 * t)) for t in SECONDS], 4),
    "nods fast": ([(480, 270 + 50 * np.sin(2 * np.pi * t)) for t in SECONDS], 5),
    "shakes": ([(480 + 80 * np.sin(3 * np.pi * t), 270) for t in SECONDS], 8),
    "comes near": ([(480, 270, 1 + 0.5 * t) for t in SECONDS], 5),
    "leans": ([(480, 270, 1, 25 * np.sin(2 * np.pi * t)) for t in SECONDS], 5),
}


@pytest.mark.parametrize(("motion", "percent"), MOTIONS.values(), ids=MOTIONS)
def test_the_transform_follows_the_head(detector, astronaut, truth, room, motion, percent):
    moves = [placed(*place) for place in motion]
    got = follow(detector, [paste(room, astronaut, move) for move in moves])
    assert all(frame.strength == 1 for frame in got)
    assert not any(frame.starts_shot for frame in got)
    errors = [error(frame, move, truth) for frame, move in zip(got, moves, strict=True)]
    assert max(errors) < percent, errors


def test_a_hand_before_the_mouth_moves_nothing(detector, astronaut, truth, room):
    moves = [placed(480 + 30 * np.sin(np.pi * t), 270) for t in SECONDS]
    pictures = [paste(room, astronaut, move) for move in moves]
    for index in range(15, 35):
        x, y = moves[index] @ np.vstack([invert(truth), [0, 0, 1]]) @ MOUTH
        cv2.ellipse(pictures[index], (int(x), int(y)), (45, 25), 20, 0, 360, (205, 150, 130), -1)
    got = follow(detector, pictures)
    errors = [error(frame, move, truth) for frame, move in zip(got, moves, strict=True)]
    assert max(errors) < 5, errors


def test_who_leaves_and_comes_back_does_not_jump(detector, astronaut, truth, room):
    """Away for eight frames, and back 40 pixels further: the mouth fades, and is in its place."""
    moves = [placed(400 if i < 20 else 440, 270) for i in range(50)]
    away = range(20, 28)
    pictures = [room if i in away else paste(room, astronaut, move) for i, move in enumerate(moves)]
    got = follow(detector, pictures)
    assert [i for i, frame in enumerate(got) if frame.transform is None] == [*away]
    assert all(np.array_equal(got[i].image, room) for i in away)
    assert [frame.strength for frame in got[16:20]] == [1, 0.75, 0.5, 0.25]
    assert [frame.strength for frame in got[28:32]] == [0.25, 0.5, 0.75, 1]
    seen = [(frame, move) for frame, move in zip(got, moves, strict=True) if frame.reference]
    assert max(error(frame, move, truth) for frame, move in seen) < 3
    assert len({id(frame.reference) for frame, _ in seen}) == 1


def test_who_walks_out_of_the_picture_fades(detector, astronaut, truth, room):
    moves = [placed(600 + 12 * i, 270) for i in range(50)]
    got = follow(detector, [paste(room, astronaut, move) for move in moves])
    strengths = [frame.strength for frame in got]
    gone = strengths.index(0)
    assert 600 + 12 * gone < 960 + FACE_WIDTH / 2
    assert max(np.diff(strengths[: gone + 1])) <= 0
    assert min(np.diff(strengths)) >= -0.3
    seen = [
        (frame, move) for frame, move in zip(got, moves, strict=True) if frame.transform is not None
    ]
    assert max(error(frame, move, truth) * frame.strength for frame, move in seen) < 6


def test_two_people_are_followed_side_by_side(detector, astronaut, truth, room):
    """They pass each other's height, and one is away for a while: each keeps its own slot."""
    left = [placed(250, 230 + 2 * i) for i in range(40)]
    right = [placed(700, 320 - 2 * i, 1.2) for i in range(40)]
    away = range(15, 22)
    pictures = [
        paste(room, astronaut, *([b] if i in away else [a, b]))
        for i, (a, b) in enumerate(zip(left, right, strict=True))
    ]
    slots = track_faces(as_frames(pictures), MultiTracker(detector))
    tracks = [add_references(fade_faces(align_faces(slot, SPEC, FPS), FPS), SPEC, FPS) for slot in slots]
    for index, (_, group) in enumerate(groupby(interleave_tracks(tracks), key=lambda frame: frame.time_s)):
        layers = list(group)
        assert [frame.slot for frame in layers] == ([0] if index in away else [0, 1])
        assert [frame.is_last for frame in layers][-1]
        for frame, move in zip(layers, (right[index], left[index]), strict=False):
            assert error(frame, move, truth) < 4


def test_a_newcomer_gets_a_slot_and_the_index_counts_from_the_left(detector, astronaut, room):
    alone = paste(room, astronaut, placed(650, 270))
    both = paste(room, astronaut, placed(650, 270), placed(300, 270, 0.9))
    tracker = MultiTracker(detector, redetect_every=5)
    numbers = [
        sum(face is not None for face in tracker.update(p)) for p in [alone] * 3 + [both] * 6
    ]
    assert numbers[:3] == [1] * 3
    assert numbers[-1] == 2
    for index, x in ((0, 300), (1, 650)):
        face = FaceTracker(detector, choose=FromTheLeft(index)).update(both)
        assert abs((face.box.x0 + face.box.x1) / 2 - x) < 20
    assert FaceTracker(detector, choose=FromTheLeft(2)).update(both) is None


def test_a_head_that_turns_keeps_its_size():
    """By the distance of its eyes alone its mouth would have shrunk to two thirds."""
    known = {**MODEL, 6: (0.0, -2.6, -5.3)}
    model = np.array([known[i] for i in RIGID_POINTS["mesh468"]] + [MODEL[4]])

    def face(degrees):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        points = np.zeros((468, 2), np.float32)
        turned = np.stack([cos * model[:, 0] - sin * model[:, 2], model[:, 1]], -1)
        points[[*RIGID_POINTS["mesh468"], 4]] = 12 * turned + 200
        return Face(Box(100, 100, 300, 300), points, 1.0, "mesh468")

    frames = as_frames([np.zeros((400, 400, 3), np.uint8)] * 51)
    sightings = zip(frames, [face(angle) for angle in np.linspace(0, 50, 51)], strict=True)
    scales = [transform_scale(frame.transform) for frame in align_faces(sightings, SPEC, FPS)]
    assert np.ptp(scales) < 0.1 * scales[0]
