"""Fixtures of source tests: a face detector, and the faces of a photo."""

import pytest
from skimage.data import astronaut

from talkinghead.features.faces.litert_detector import LiteRtDetector


@pytest.fixture(scope="session")
def detector():
    return LiteRtDetector()


@pytest.fixture(scope="session")
def faces(detector):
    return detector.detect(astronaut())
