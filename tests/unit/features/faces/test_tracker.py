"""Face tracking: redetection, loss, shot cuts and whole clips."""

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import skimage.data

from talkinghead.errors import FaceNotFoundError
from talkinghead.features.faces.alignment import estimate_transform
from talkinghead.features.faces.detector import build_detector
from talkinghead.features.faces.tracker import (
    FaceTracker,
    MultiTracker,
    SelectFaceFromLeft,
    track_clip,
)
from talkinghead.features.shot_detection import ShotDetector
from talkinghead.media.decoding.planes import Orientation
from talkinghead.media.decoding.video_image import VideoImage, YUVColours
from talkinghead.types import AVSpec, Box, Face, VideoFrame

SPEC = AVSpec()
BLANK = np.full((240, 320, 3), 96, np.uint8)


class DriftingDetector:
    """A detector whose tracked landmarks drift away from the face at x = 0."""

    topology = "mesh468"

    def __init__(self):
        self.x, self.num_detections = 0.0, 0

    def _face(self, x):
        return Face(Box(x, 0, x + 50, 50), np.full((468, 2), x, np.float32), 1.0, self.topology)

    def detect(self, image):
        self.num_detections += 1
        return [self._face(0)]

    def track(self, image, previous):
        self.x += 12
        return self._face(self.x)


class GrowingDetector(DriftingDetector):
    """A detector whose tracked landmarks grow by 4 % per frame."""

    def __init__(self):
        super().__init__()
        self.size = 50.0

    def detect(self, image):
        self.size = 50.0
        return super().detect(image)

    def track(self, image, previous):
        self.size *= 1.04
        face = self._face(0)
        return replace(face, box=Box(0, 0, self.size, self.size))


@pytest.mark.parametrize("tracker_type", [FaceTracker, MultiTracker])
def test_landmarks_that_outgrow_the_face_are_detected_again(tracker_type):
    detector = GrowingDetector()
    tracker = tracker_type(detector, redetect_every=1000)
    faces = [tracker.update(BLANK) for _ in range(20)]
    faces = [face[0] if isinstance(face, list) else face for face in faces]
    assert max(face.box.width for face in faces) < 54
    assert detector.num_detections < 12


def test_redetection_at_the_interval_replaces_drifted_landmarks():
    detector = DriftingDetector()
    tracker = FaceTracker(detector, redetect_every=5)
    faces, num_detections = [], []
    for _ in range(6):
        faces.append(tracker.update(BLANK))
        num_detections.append(detector.num_detections)
    assert [face.box.x0 for face in faces] == [0, 12, 24, 36, 48, 0]
    assert num_detections[:5] == [1] * 5


def test_tracker_selects_another_face_only_after_the_tracked_face_is_lost(detector, astronaut):
    tracker = FaceTracker(detector, redetect_every=2)

    def draw(left, right):
        image = np.full((400, 900, 3), 128, np.uint8)
        for x, scale in ((120, left), (620, right)):
            if scale:
                face = cv2.resize(astronaut[30:210, 130:310], None, fx=scale, fy=scale)
                image[40 : 40 + len(face), x : x + len(face)] = face
        return image

    for step in np.linspace(0, 0.4, 9):
        assert tracker.update(draw(1.4 - step, 1.0 + step)).box.x1 < 450
    assert [tracker.update(draw(0, 1.4)) for _ in range(3)] == [None] * 3
    assert tracker.update(draw(1.0, 1.4)).box.x1 < 450
    faces = [tracker.update(draw(0, 1.4)) for _ in range(32)]
    assert faces[:20] == [None] * 20
    assert faces[-1].box.x0 > 450


def test_cut_resets_the_tracker_and_camera_motion_is_not_a_cut(detector, astronaut, pan):
    moving_camera = ShotDetector()
    assert not any(moving_camera.update(image) for image in pan[::4])
    tracker = FaceTracker(detector)
    other = np.ascontiguousarray(255 - cv2.resize(skimage.data.coffee(), (512, 512)))
    other[200:460, 200:470] = astronaut[20:280, 90:360]
    cuts, faces = [], []
    for image in [astronaut] * 3 + [other] * 3:
        faces.append(tracker.update(image))
        cuts.append(tracker.cut)
    assert cuts == [False, False, False, True, False, False]
    assert faces[3].box.y0 > 200


class MovingFaces:
    """A detector of the faces at the positions `xs`, which may move by less than 20 pixels."""

    topology = "mesh468"

    def __init__(self):
        self.xs = []

    def detect(self, image):
        return [
            Face(Box(x, 0, x + 50, 50), np.full((468, 2), x, np.float32), 1.0, self.topology)
            for x in self.xs
        ]

    def track(self, image, previous):
        near = (face for face in self.detect(image) if abs(face.box.x0 - previous.box.x0) < 20)
        return next(near, None)


@pytest.mark.parametrize(
    ("indices", "shots", "expected", "exchanged"),
    [
        ([0, 1], [[200], [200, 50]], [50, 200], {0}),
        ([1, 0], [[200], [200, 50]], [200, 50], {1}),
        ([0, 1], [[50], [50, 200]], [50, 200], set()),
        ([0, 1, 2], [[200], [200, 50], [200, 50, 100]], [50, 100, 200], {1}),
        ([0, 1], [[100, 200], [10, 100, 200]], [100, 200], set()),
        ([0, 1], [[200], [200, 50], [200]], [None, 200], set()),
    ],
    ids=str,
)
def test_faces_from_the_left_are_counted_again_when_more_appear(
    indices, shots, expected, exchanged
):
    detector = MovingFaces()
    tracker = MultiTracker(detector, selectors=[SelectFaceFromLeft(index) for index in indices])
    for xs in shots:
        detector.xs = xs
        tracker.update(BLANK)
        last_exchanged = set(tracker.exchanged)
        for step in range(41 if xs is shots[-1] else 8):
            detector.xs = [x + step % 3 for x in xs]
            faces = tracker.update(BLANK)
            assert not tracker.exchanged
    assert last_exchanged == exchanged
    positions = [face if face is None else face.box.x0 - 1 for face in faces]
    assert positions == expected


def test_clip_track_follows_the_face(detector, pan):
    frames = (VideoFrame(image, Fraction(i, 25)) for i, image in enumerate(pan[:24:2]))
    track = track_clip(frames, detector, SPEC, Fraction(25))
    assert track.found.all()
    assert (track.transforms.shape, track.transforms.dtype) == ((12, 2, 3), np.float32)
    assert track.points.shape == (12, 468, 2)
    raw = np.stack([estimate_transform(p, "mesh468", SPEC) for p in track.points])
    assert np.abs(track.transforms[3:-3, :, :2] - raw[3:-3, :, :2]).max() < 0.05
    # The face moves by two pixels per frame.
    scale = track.transforms[0, 0, 0]
    assert np.diff(track.transforms[:, 0, 2])[3:-3] == pytest.approx(2 * scale, rel=0.35)


def test_clip_track_interpolates_missing_faces(detector, pan):
    missing = [0, *range(10, 30)]
    images = [np.full_like(x, 120) if i in missing else x for i, x in enumerate(pan)]
    track = track_clip(images, detector, SPEC, Fraction(10))
    assert np.flatnonzero(~track.found).tolist() == missing
    assert np.isnan(track.points[15]).all()
    assert np.isfinite(track.transforms).all()
    assert np.abs(np.diff(track.transforms[:, 0, 2])).max() < 60


@pytest.mark.parametrize("num_frames", [0, 3])
def test_clip_without_a_face_is_refused(detector, num_frames):
    with pytest.raises(FaceNotFoundError, match=f"any of {num_frames} frames"):
        track_clip([BLANK] * num_frames, detector, SPEC, Fraction(25))


def test_large_face_of_a_video_is_found_as_in_the_whole_image():
    photo = cv2.resize(
        skimage.data.astronaut()[:300, 80:380], (1800, 1800), interpolation=cv2.INTER_CUBIC
    )
    frame = av.VideoFrame.from_ndarray(photo, "rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1)
    image, detector = VideoImage(frame, Orientation(), YUVColours(1, 1)), build_detector()
    tracker, expected = FaceTracker(detector), FaceTracker(detector)
    for _ in range(2):  # The first face is detected, the second is tracked.
        face, other = tracker.update(image), expected.update(image.to_array())
        assert face.box.width > 500
        assert np.abs(face.points - other.points).max() < 0.02 * face.box.width
        assert np.abs(face.points - other.points).mean() < 0.005 * face.box.width
