"""Face tracks of a real face that is moved, turned, occluded and removed along a known path."""

from dataclasses import replace
from fractions import Fraction
from itertools import groupby, pairwise

import cv2
import numpy as np
import pytest
import skimage.data

from talkinghead.features.faces.alignment import (
    RIGID_POINTS,
    canonical_points,
    estimate_transform,
    frontality,
    invert,
    transform_scale,
)
from talkinghead.features.faces.head_pose import _FACE_CM as MODEL
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.features.faces.tracker import FaceTracker, MultiTracker, SelectFaceFromLeft
from talkinghead.predict.source.face_tracks import (
    align_faces,
    fade_faces,
    interleave_tracks,
    track_face,
    track_faces,
)
from talkinghead.predict.source.reference_policy import add_references
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import AVSpec, Box, Face

SPEC = AVSpec()
FPS = Fraction(25)
CENTRE = np.array([225.0, 120.0])
EYES, MOUTH = np.array([128, 85, 1.0]), np.array([128, 190, 1.0])
"""In the canonical face."""
FACE_WIDTH = 96
"""Of the astronaut, in pixels of the photo."""
IDENTITY = np.eye(2, 3, dtype=np.float32)
SECONDS = np.arange(50) / 25


@pytest.fixture(scope="module")
def detector():
    return LiteRtDetector()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def photo_transform(detector, astronaut):
    """The transform from pixels of the photo to the canonical face."""
    face = detector.track(astronaut, detector.detect(astronaut)[0])
    return estimate_transform(face.points, face.topology, SPEC)


@pytest.fixture(scope="module")
def background():
    return cv2.resize(skimage.data.coffee(), (960, 540))


def move_to(x, y, scale=1.0, degrees=0.0):
    """Return the transform that moves the photo's face to (x, y) of the background."""
    angle = np.radians(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, np.array([x, y]) - linear @ CENTRE])


def paste(background, astronaut, *moves):
    head = np.zeros(astronaut.shape[:2], np.float32)
    cv2.ellipse(head, (225, 115), (95, 105), 0, 0, 360, 1, -1)
    head = cv2.GaussianBlur(head, (0, 0), 4)
    image = background.astype(np.float32)
    for move in moves:
        weight = cv2.warpAffine(head, move, (960, 540))[..., None]
        image += weight * (cv2.warpAffine(astronaut, move, (960, 540)) - image)
    return image.astype(np.uint8)


def as_frames(images):
    return [
        SourceFrame(image, i / FPS, 1 / FPS, file_time_s=i / FPS) for i, image in enumerate(images)
    ]


def prepare(sightings):
    return add_references(fade_faces(align_faces(sightings, SPEC, FPS), FPS), SPEC, FPS)


def follow(detector, images):
    return list(prepare(track_face(as_frames(images), FaceTracker(detector))))


def error_percent(frame, move, photo_transform):
    """Return the position error of eyes and mouth, in percent of the face's width."""
    expected = move @ np.vstack([invert(photo_transform), [0, 0, 1]])
    actual = invert(frame.transform)
    error = max(np.linalg.norm(actual @ point - expected @ point) for point in (EYES, MOUTH))
    return 100 * error / (FACE_WIDTH * np.hypot(*move[:, 0]))


MOTIONS = {
    "still": ([(480, 270)] * 50, 1.5),
    "nods": ([(480, 270 + 50 * np.sin(2 * np.pi * t)) for t in SECONDS], 5),
    "shakes": ([(480 + 80 * np.sin(3 * np.pi * t), 270) for t in SECONDS], 8),
    "approaches": ([(480, 270, 1 + 0.5 * t) for t in SECONDS], 5),
    "leans": ([(480, 270, 1, 25 * np.sin(2 * np.pi * t)) for t in SECONDS], 5),
}


@pytest.mark.parametrize(("motion", "max_percent"), MOTIONS.values(), ids=MOTIONS)
def test_transform_follows_head(
    detector, astronaut, photo_transform, background, motion, max_percent
):
    moves = [move_to(*position) for position in motion]
    frames = follow(detector, [paste(background, astronaut, move) for move in moves])
    assert all(frame.strength == 1 for frame in frames)
    assert not any(frame.starts_shot for frame in frames)
    errors = [
        error_percent(f, move, photo_transform) for f, move in zip(frames, moves, strict=True)
    ]
    assert max(errors) < max_percent, errors


def test_hand_in_front_of_mouth_does_not_move_transform(
    detector, astronaut, photo_transform, background
):
    moves = [move_to(480 + 30 * np.sin(np.pi * t), 270) for t in SECONDS]
    images = [paste(background, astronaut, move) for move in moves]
    for index in range(15, 35):
        x, y = moves[index] @ np.vstack([invert(photo_transform), [0, 0, 1]]) @ MOUTH
        cv2.ellipse(images[index], (int(x), int(y)), (45, 25), 20, 0, 360, (205, 150, 130), -1)
    frames = follow(detector, images)
    errors = [
        error_percent(f, move, photo_transform) for f, move in zip(frames, moves, strict=True)
    ]
    assert max(errors) < 5, errors


def test_face_that_is_briefly_absent_fades_and_returns_in_place(
    detector, astronaut, photo_transform, background
):
    moves = [move_to(400 if i < 20 else 440, 270) for i in range(50)]
    absent = range(20, 28)
    images = [
        background if i in absent else paste(background, astronaut, move)
        for i, move in enumerate(moves)
    ]
    frames = follow(detector, images)
    assert [i for i, frame in enumerate(frames) if frame.transform is None] == [*absent]
    assert all(np.array_equal(frames[i].image, background) for i in absent)
    assert [frame.strength for frame in frames[16:20]] == [1, 0.75, 0.5, 0.25]
    assert [frame.strength for frame in frames[28:32]] == [0.25, 0.5, 0.75, 1]
    present = [(frame, move) for frame, move in zip(frames, moves, strict=True) if frame.reference]
    assert max(error_percent(frame, move, photo_transform) for frame, move in present) < 3
    assert len({id(frame.reference) for frame, _ in present}) == 1


def test_face_that_leaves_the_image_fades(detector, astronaut, photo_transform, background):
    moves = [move_to(600 + 12 * i, 270) for i in range(50)]
    frames = follow(detector, [paste(background, astronaut, move) for move in moves])
    strengths = [frame.strength for frame in frames]
    gone = strengths.index(0)
    assert 600 + 12 * gone < 960 + FACE_WIDTH / 2
    assert max(np.diff(strengths[: gone + 1])) <= 0
    assert min(np.diff(strengths)) >= -0.3
    present = [
        (frame, move)
        for frame, move in zip(frames, moves, strict=True)
        if frame.transform is not None
    ]
    errors = [error_percent(f, move, photo_transform) * f.strength for f, move in present]
    assert max(errors) < 6


def test_two_faces_keep_their_slots(detector, astronaut, photo_transform, background):
    """The faces cross in height, and one is absent for some frames."""
    left = [move_to(250, 230 + 2 * i) for i in range(40)]
    right = [move_to(700, 320 - 2 * i, 1.2) for i in range(40)]
    absent = range(15, 22)
    images = [
        paste(background, astronaut, *([b] if i in absent else [a, b]))
        for i, (a, b) in enumerate(zip(left, right, strict=True))
    ]
    slots = track_faces(as_frames(images), MultiTracker(detector))
    frames = interleave_tracks(prepare(slot) for slot in slots)
    for index, (_, group) in enumerate(groupby(frames, key=lambda frame: frame.time_s)):
        faces = list(group)
        assert [frame.slot for frame in faces] == ([0] if index in absent else [0, 1])
        assert faces[-1].is_last
        for frame, move in zip(faces, (right[index], left[index]), strict=False):
            assert error_percent(frame, move, photo_transform) < 4


def test_new_face_gets_a_slot_and_index_counts_from_the_left(detector, astronaut, background):
    one = paste(background, astronaut, move_to(650, 270))
    two = paste(background, astronaut, move_to(650, 270), move_to(300, 270, 0.9))
    tracker = MultiTracker(detector, redetect_every=5)
    counts = [
        sum(face is not None for face in tracker.update(image)) for image in [one] * 3 + [two] * 6
    ]
    assert counts[:3] == [1] * 3
    assert counts[-1] == 2
    for index, x in ((0, 300), (1, 650)):
        face = FaceTracker(detector, select=SelectFaceFromLeft(index)).update(two)
        assert abs((face.box.x0 + face.box.x1) / 2 - x) < 20
    assert FaceTracker(detector, select=SelectFaceFromLeft(2)).update(two) is None


def test_turning_head_keeps_its_scale():
    """With the eye distance alone the scale would fall to two thirds."""
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


def test_frontality_falls_as_head_turns():
    """Eye corners and nose base of MediaPipe's canonical face, turned."""
    points = np.zeros((468, 3))
    points[[33, 263]] = (-4.446, -2.664, -3.173), (4.446, -2.664, -3.173)
    points[[98, 327]] = (-1.406, 1.714, -5.241), (1.406, 1.714, -5.241)

    def at(degrees):
        angle = np.radians(degrees)
        across = np.array([np.cos(angle), 0, np.sin(angle)])
        turned = np.stack([points @ across, points[:, 1]], axis=1).astype(np.float32)
        return frontality(turned, "mesh468")

    assert at(0) == at(45) == 1
    assert 0.2 < at(-56) < 0.8
    assert at(70) == at(-85) == 0


class Tracker:
    """Return the face that the first pixel encodes: x (0: no face), opening, cut."""

    cut = False

    def update(self, image, time_s=0):
        x, opening, cut = (int(v) for v in image[0, 0])
        self.cut = bool(cut)
        points = np.zeros((468, 2), np.float32)
        points[list(RIGID_POINTS["mesh468"])] = canonical_points("mesh468", SPEC)
        points[4] = 128, 120  # The tip of the nose.
        points[13], points[14] = (128, 160), (128, 160 + opening)
        face = Face(Box(0, 0, 1, 1), points + np.float32([x, 0]), 1.0, "mesh468")
        return face if x else None

    def reset(self):
        pass


def image_of(x=1, opening=0, cut=0):
    return np.full((4, 4, 3), [x, opening, cut], np.uint8)


def align(frames):
    return align_faces(track_face(frames, Tracker()), SPEC, FPS)


def test_transforms_are_smoothed_and_reset_at_cuts():
    images = [image_of(10 + i % 2) for i in range(30)]
    images += [image_of(90, cut=i == 0) for i in range(30)]
    frames = list(align(as_frames(images)))
    assert [f.time_s for f in frames] == [i / FPS for i in range(60)]
    x = np.array([f.transform[0, 2] for f in frames])
    assert np.ptp(x[5:25]) < 0.2
    assert np.allclose(x[30:], -90, atol=1e-3)
    assert [f.starts_shot for f in frames].index(True) == 30


def test_alignment_reads_half_a_second_ahead():
    num_read = 0

    def endless():
        nonlocal num_read
        for frame in as_frames([image_of()] * 500):
            num_read += 1
            yield frame

    next(align(endless()))
    assert num_read == 13


def fade(strengths, starts_shot=None):
    given = [
        SourceFrame(
            image_of(),
            i / FPS,
            1 / FPS,
            IDENTITY if strength else None,
            strength=float(strength),
            starts_shot=i == starts_shot,
        )
        for i, strength in enumerate(strengths)
    ]
    frames = list(fade_faces(given, FPS))
    assert [frame.time_s for frame in frames] == [frame.time_s for frame in given]
    return [frame.strength if frame.transform is not None else None for frame in frames]


def test_mouth_fades_out_before_and_in_after_the_face_is_absent():
    assert fade([1] * 6 + [0] * 2 + [1] * 6) == [
        *(1, 1, 1, 0.75, 0.5, 0.25),
        *(None, None),
        *(0.25, 0.5, 0.75, 1, 1, 1),
    ]
    turning = fade([1, 1, 1, 0.4, 0.1, 0.6, 1, 1, 1, 1])
    assert max(abs(a - b) for a, b in pairwise(turning)) <= 0.3
    assert turning[4] == 0.1


def test_mouth_does_not_fade_at_a_cut():
    assert fade([0] * 5 + [1] * 5, starts_shot=5) == [None] * 5 + [1] * 5


def test_interleaved_tracks_contain_each_image_once_per_face():
    frames = as_frames([image_of()] * 3)
    faces = [replace(frame, transform=IDENTITY) for frame in frames]
    merged = list(
        interleave_tracks([[frames[0], faces[1], faces[2]], [frames[0], faces[1], frames[2]]])
    )
    assert [f.time_s for f in merged] == [0, Fraction(1, 25), Fraction(1, 25), Fraction(2, 25)]
    assert [f.is_last for f in merged] == [True, False, True, True]
