"""Fixtures of face tests: a detector and a photo."""

import pytest
import skimage.data

from talkinghead.features.faces.litert_detector import LiteRtDetector


@pytest.fixture(scope="session")
def detector():
    return LiteRtDetector()


@pytest.fixture(scope="session")
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture(scope="session")
def pan(astronaut):
    """Return 40 frames of a camera that pans over the face by one pixel per frame."""
    return [astronaut[:280, x : x + 360].copy() for x in range(40)]
