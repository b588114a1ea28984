"""Face detector protocol, and construction of a face detector by name.

The packages of a detector are imported only when the detector is built.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

from talkinghead.errors import DependencyError, UsageError
from talkinghead.types import Face, UInt8Array

# Module and class of each detector, and the advice shown if a package is missing.
_DETECTORS = {
    "litert": (
        *("litert_detector", "LiteRtDetector"),
        "pip install ai-edge-litert opencv-python-headless",
    ),
    "face_alignment": (
        *("face_alignment_detector", "FaceAlignmentDetector"),
        "run `talkinghead setup`, or choose detector=litert, which works offline",
    ),
}


class FaceDetector(Protocol):
    """Detector of faces and their landmarks, safe for concurrent callers.

    Attributes:
        topology: order of the landmarks, "mesh468" or "ibug68".
    """

    topology: str

    def detect(self, image: UInt8Array) -> list[Face]:
        """Return the faces in an image uint8 [H, W, 3] RGB, largest first."""

    def track(self, image: UInt8Array, previous: Face) -> Face | None:
        """Find the face `previous` of the previous frame in the next frame; return None if lost.

        This is much faster than `detect`. The image may be the part of a frame around the face,
        reduced if the face is large; `previous` and the result refer to its pixels.
        """


def build_detector(name: str = "litert", **options: Any) -> FaceDetector:
    """Build a detector by name.

    Args:
        name: "litert" (468 points, offline) or "face_alignment" (68 points, downloads weights).
        **options: keyword arguments of the detector's class.

    Raises:
        UsageError: the name is unknown.
        DependencyError: a package or weight file of the detector is missing.
    """
    if name not in _DETECTORS:
        raise UsageError(f"detector={name} is unknown; choose one of {', '.join(_DETECTORS)}")
    module, class_name, advice = _DETECTORS[name]
    try:
        detector = getattr(import_module(f"talkinghead.features.faces.{module}"), class_name)
    except ImportError as error:
        raise DependencyError(
            f"detector={name} needs a missing package ({error}): {advice}"
        ) from error
    return cast(FaceDetector, detector(**options))
