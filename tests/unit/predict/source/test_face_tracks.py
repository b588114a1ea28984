"""Face tracks of a real face that is moved, turned, occluded and removed along a known path."""

from dataclasses import replace
from fractions import Fraction
from itertools import groupby
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import skimage.data
from helpers.small_predictor import aligned_face

from talkinghead.features.faces.alignment import (
    RIGID_POINTS,
    estimate_transform,
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
from talkinghead.predict.source.mouth_covering import measure_visibility
from talkinghead.predict.source.reference_policy import add_references
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import AVSpec, Box, Face

SPEC = AVSpec()
FPS = Fraction(25)
CENTRE = np.array([225.0, 120.0])
EYES, MOUTH = np.array([128, 85, 1.0]), np.array([128, 190, 1.0])
"""Points in the canonical face."""
FACE_WIDTH = 96
"""Width of the astronaut's face in pixels of the photo."""
IMAGE = np.zeros((4, 100, 3), np.uint8)
SECONDS = np.arange(25) / 25


def move_to(x, y, scale=1.0, degrees=0.0):
    """Return the transform that moves the photo's face to (x, y) of the background."""
    angle = np.radians(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, np.array([x, y]) - linear @ CENTRE])


class Scene:
    """A photo's face in front of a background, and the real detector."""

    def __init__(self):
        self.detector = LiteRtDetector()
        self.photo = skimage.data.astronaut()
        self.background = cv2.resize(skimage.data.coffee(), (960, 540))
        face = self.detector.track(self.photo, self.detector.detect(self.photo)[0])
        transform = estimate_transform(face.points, face.topology, SPEC)
        self.from_canonical = np.vstack([invert(transform), [0, 0, 1]])
        head = np.zeros(self.photo.shape[:2], np.float32)
        cv2.ellipse(head, (225, 115), (95, 105), 0, 0, 360, 1, -1)
        self.head = cv2.GaussianBlur(head, (0, 0), 4)

    def image(self, *moves):
        image = self.background.astype(np.float32)
        for move in moves:
            weight = cv2.warpAffine(self.head, move, (960, 540))
            x, y, width, height = cv2.boundingRect((weight > 0).astype(np.uint8))
            area = np.s_[y : y + height, x : x + width]
            photo = cv2.warpAffine(self.photo, move, (960, 540))[area]
            image[area] += weight[area][..., None] * (photo - image[area])
        return image.astype(np.uint8)

    def follow(self, images):
        return list(prepare(track_face(as_frames(images), FaceTracker(self.detector))))

    def error_percent(self, frame, move):
        """Return the position error of eyes and mouth, in percent of the face's width."""
        expected, actual = move @ self.from_canonical, invert(frame.transform)
        error = max(np.linalg.norm(actual @ point - expected @ point) for point in (EYES, MOUTH))
        return 100 * error / (FACE_WIDTH * np.hypot(*move[:, 0]))

    def max_error_percent(self, frames, moves):
        pairs = zip(frames, moves, strict=True)
        return max(self.error_percent(f, m) * f.strength for f, m in pairs if f.strength)


@pytest.fixture(scope="module")
def scene():
    return Scene()


def as_frames(images, cuts=()):
    return [
        SourceFrame(image, i / FPS, 1 / FPS, file_time_s=i / FPS, starts_shot=i in cuts)
        for i, image in enumerate(images)
    ]


def prepare(sightings):
    return add_references(fade_faces(align_faces(sightings, SPEC, FPS), FPS), SPEC, FPS)


MOTIONS = {
    "still": ([(480, 270)] * 25, 1.5),
    "nods": ([(480, 270 + 50 * np.sin(2 * np.pi * t)) for t in SECONDS], 5),
    "shakes": ([(480 + 80 * np.sin(3 * np.pi * t), 270) for t in SECONDS], 8),
    "approaches": ([(480, 270, 1 + 0.5 * t) for t in SECONDS], 5),
    "leans": ([(480, 270, 1, 25 * np.sin(2 * np.pi * t)) for t in SECONDS], 5),
}


@pytest.mark.parametrize(("motion", "max_percent"), MOTIONS.values(), ids=MOTIONS)
def test_transform_follows_head(scene, motion, max_percent):
    moves = [move_to(*position) for position in motion]
    frames = scene.follow([scene.image(move) for move in moves])
    assert all(frame.strength == 1 for frame in frames)
    assert not any(frame.starts_shot for frame in frames)
    assert scene.max_error_percent(frames, moves) < max_percent


def test_hand_in_front_of_mouth_does_not_move_transform(scene):
    moves = [move_to(480 + 30 * np.sin(np.pi * t), 270) for t in SECONDS]
    images = [scene.image(move) for move in moves]
    for index in range(8, 18):
        x, y = moves[index] @ scene.from_canonical @ MOUTH
        cv2.ellipse(images[index], (int(x), int(y)), (45, 25), 20, 0, 360, (205, 150, 130), -1)
    assert scene.max_error_percent(scene.follow(images), moves) < 5


def test_face_that_is_briefly_absent_fades_and_returns_in_place(scene):
    moves = [move_to(400 if i < 20 else 440, 270) for i in range(36)]
    absent = range(20, 28)
    images = [scene.image(*([] if i in absent else [move])) for i, move in enumerate(moves)]
    frames = scene.follow(images)
    assert [i for i, frame in enumerate(frames) if frame.transform is None] == [*absent]
    assert all(np.array_equal(frames[i].image, scene.background) for i in absent)
    assert [frame.strength for frame in frames[16:20]] == [1, 0.75, 0.5, 0.25]
    assert [frame.strength for frame in frames[28:32]] == [0.25, 0.5, 0.75, 1]
    present = [(frame, move) for frame, move in zip(frames, moves, strict=True) if frame.reference]
    assert max(scene.error_percent(frame, move) for frame, move in present) < 3
    assert len({id(frame.reference) for frame, _ in present}) == 1


@pytest.mark.slow
def test_face_that_leaves_the_image_fades(scene):
    moves = [move_to(600 + 12 * i, 270) for i in range(50)]
    frames = scene.follow([scene.image(move) for move in moves])
    strengths = [frame.strength for frame in frames]
    gone = strengths.index(0)
    assert 600 + 12 * gone < 960 + FACE_WIDTH / 2
    assert max(np.diff(strengths[: gone + 1])) <= 0
    assert min(np.diff(strengths)) >= -0.3
    assert scene.max_error_percent(frames, moves) < 6


def test_two_faces_keep_their_slots(scene):
    """The faces cross in height. One is absent for some frames, and both at the end."""
    left = [move_to(250, 230 + 2 * i) for i in range(40)]
    right = [move_to(700, 320 - 2 * i, 1.2) for i in range(40)]
    absent = range(15, 22)
    moves = [right[i : i + 1] + (left[i : i + 1] if i not in absent else []) for i in range(41)]
    images = [scene.image(*faces) for faces in moves]
    slots = track_faces(as_frames(images), MultiTracker(scene.detector))
    frames = interleave_tracks(prepare(slot) for slot in slots)
    for index, (time_s, group) in enumerate(groupby(frames, key=lambda frame: frame.time_s)):
        faces = list(group)
        assert time_s == index / FPS
        assert [frame.slot for frame in faces] == ([0] if len(moves[index]) < 2 else [0, 1])
        assert [frame.is_last for frame in faces] == [False] * (len(faces) - 1) + [True]
        for frame, move in zip(faces, moves[index], strict=False):
            assert scene.error_percent(frame, move) < 4
    assert index == 40
    assert faces[0].transform is None


def test_slot_restarts_when_its_face_is_exchanged():
    """The face that comes in from the left takes the slot of the face that was alone."""
    detector = SimpleNamespace(topology="mesh468", track=lambda image, previous: previous)
    alone, both = [aligned_face(90, 9)], [aligned_face(90, 9), aligned_face(10, 9)]
    detector.detect = lambda image: alone if image[0, 0, 0] == 1 else both
    images = [np.full((60, 120, 3), 1 + (i > 9), np.uint8) for i in range(30)]
    tracker = MultiTracker(detector, selectors=[SelectFaceFromLeft(0), SelectFaceFromLeft(1)])
    left, right = (list(prepare(slot)) for slot in track_faces(as_frames(images), tracker))
    assert [frame.starts_shot for frame in left] == [i == 10 for i in range(30)]
    assert not any(frame.starts_shot for frame in right)
    x = [frame.transform[0, 2] for frame in left]
    assert np.allclose(x, [-90] * 10 + [-10] * 20, atol=1e-3)
    assert left[9].reference is not left[10].reference is left[29].reference
    assert [frame.transform is None for frame in right] == [True] * 10 + [False] * 20


def test_new_face_gets_a_slot(scene):
    one = scene.image(move_to(650, 270))
    two = scene.image(move_to(650, 270), move_to(300, 270, 0.9))
    tracker = MultiTracker(scene.detector, redetect_every=5)
    counts = [4 - tracker.update(image).count(None) for image in [one] * 3 + [two] * 6]
    assert counts[:3] == [1] * 3
    assert counts[-1] == 2


def test_turning_head_keeps_its_scale_and_fades():
    """With the eye distance alone the scale would fall to two thirds."""
    known = {**MODEL, 6: (0.0, -2.6, -5.3)}
    model = np.array([known[i] for i in RIGID_POINTS["mesh468"]] + [MODEL[4]])

    def face(degrees):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        points = np.zeros((468, 2), np.float32)
        turned = np.stack([cos * model[:, 0] - sin * model[:, 2], model[:, 1]], -1)
        points[[*RIGID_POINTS["mesh468"], 4]] = 12 * turned + 200
        return Face(Box(100, 100, 300, 300), points, 1.0, "mesh468")

    images = [np.zeros((400, 400, 3), np.uint8)] * 71
    sightings = zip(as_frames(images), map(face, range(71)), strict=True)
    frames = list(align_faces(sightings, SPEC, FPS))
    scales = [transform_scale(frame.transform) for frame in frames[:46]]
    assert np.ptp(scales) < 0.1 * scales[0]
    assert all(frame.strength == 1 for frame in frames[:46])
    assert 0.2 < frames[56].strength < 0.8
    assert frames[70].strength == 0


def test_transforms_are_smoothed_and_mouths_do_not_fade_at_cuts():
    faces = [aligned_face(10 + i % 2) for i in range(30)] + [None] * 10 + [aligned_face(90)] * 20
    sightings = zip(as_frames([IMAGE] * 60, cuts=(30, 40)), faces, strict=True)
    frames = list(fade_faces(align_faces(sightings, SPEC, FPS), FPS))
    assert [frame.time_s for frame in frames] == [i / FPS for i in range(60)]
    assert [frame.strength for frame in frames] == [1] * 30 + [0] * 10 + [1] * 20
    x = [0 if frame.transform is None else frame.transform[0, 2] for frame in frames]
    assert np.ptp(x[5:25]) < 0.2
    assert np.allclose(x[30:], [0] * 10 + [-90] * 20, atol=1e-3)


def test_mixture_of_two_shots_has_no_face():
    frames = as_frames([np.zeros((256, 256, 3), np.uint8)] * 30, cuts=[20])
    frames[20] = replace(frames[20], num_mixed=6)
    sightings = [(frame, aligned_face(size=200)) for frame in frames]
    aligned = list(align_faces(sightings, SPEC, FPS))
    assert [i for i, frame in enumerate(aligned) if frame.transform is None] == list(range(14, 20))
    faded = [frame.strength for frame in fade_faces(aligned, FPS)]
    assert faded[10] == faded[20] == 1
    assert 0 < faded[13] < faded[12] < 1


def test_alignment_reads_half_a_second_ahead():
    frames = iter(as_frames([IMAGE] * 50))
    next(align_faces(((frame, aligned_face(0)) for frame in frames), SPEC, FPS))
    assert len(list(frames)) == 50 - 13


@pytest.mark.parametrize(
    ("covered", "expected"),
    [({3, 8, 9, 18}, {3, 4, 5, 6, 7, 8, 9, *range(10, 19)}), ({3, 15}, {3, 15})],
    ids=["close", "far"],
)
def test_frames_between_covered_ones_are_covered(monkeypatch, covered, expected):
    numbers = iter(range(30))

    def measure(*args):
        seen = measure_visibility(*args)
        return seen._replace(is_covered=next(numbers) in covered)

    monkeypatch.setattr("talkinghead.predict.source.face_tracks.measure_visibility", measure)
    sightings = ((frame, aligned_face(0)) for frame in as_frames([IMAGE] * 30))
    frames = list(align_faces(sightings, SPEC, FPS))
    assert {i for i, frame in enumerate(frames) if frame.is_covered} == expected
    assert {i for i, frame in enumerate(frames) if frame.strength == 0} == expected


def test_warning_of_a_covered_mouth_names_the_video(monkeypatch, caplog):
    def measure(*args):
        return measure_visibility(*args)._replace(is_covered=True)

    monkeypatch.setattr("talkinghead.predict.source.face_tracks.measure_visibility", measure)
    sightings = [(frame, aligned_face(0)) for frame in as_frames([IMAGE] * 3)]
    assert len(list(align_faces(sightings, SPEC, FPS))) == 3
    assert not caplog.text  # As in the search for the speaker, which reads the video first.
    assert len(list(align_faces(sightings, SPEC, FPS, "some/mask.mp4"))) == 3
    assert "some/mask.mp4: the mouth is covered at 0.00 s" in caplog.text
