"""Face detector of the package face-alignment, with a substitute for its networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from talkinghead.errors import DependencyError
from talkinghead.features.faces import face_alignment_detector as fan
from talkinghead.features.faces.detector import build_detector

IMAGE = np.full((240, 320, 3), 96, np.uint8)


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
    first, second = detector.detect(IMAGE)
    assert first.topology == detector.topology == "ibug68"
    assert first.points.shape == (68, 2)
    assert first.box.width > second.box.width
    assert detector.track(IMAGE, first) is not None
    monkeypatch.setattr(FakeFaceAlignment, "peaks", 0.05)
    assert detector.track(IMAGE, first) is None
