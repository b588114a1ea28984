"""Face detector protocol, and construction of a detector by name, without heavy imports."""

from __future__ import annotations

from typing import Any, Protocol

from talkinghead.errors import DependencyError, UsageError
from talkinghead.types import Face, UInt8Array

DETECTORS = ("litert", "face_alignment")


class FaceDetector(Protocol):
    """Detector of faces with landmarks; an instance may be used by one thread at a time.

    Attributes:
        topology: order of the landmarks, "mesh468" or "ibug68".
    """

    topology: str

    def detect(self, image: UInt8Array) -> list[Face]:
        """Detect the faces in an image.

        Args:
            image: uint8 [H, W, 3] RGB.

        Returns:
            The faces, largest first.
        """

    def track(self, image: UInt8Array, previous: Face) -> Face | None:
        """Find a face of the previous frame near its region, which is much faster than `detect`.

        Args:
            image: uint8 [H, W, 3] RGB.
            previous: the face in the previous frame.

        Returns:
            The face, or None if the region shows none.
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
    if name not in DETECTORS:
        raise UsageError(f"detector={name} is unknown; choose one of {', '.join(DETECTORS)}")
    if name == "litert":
        try:
            from talkinghead.features.faces.litert_detector import LiteRtDetector
        except ImportError as error:
            raise DependencyError(
                f"detector=litert needs a missing package ({error}): "
                "pip install ai-edge-litert opencv-python-headless"
            ) from error
        return LiteRtDetector(**options)
    try:
        from talkinghead.features.faces.face_alignment_detector import FanDetector
    except ImportError as error:
        raise DependencyError(
            f"detector=face_alignment needs the package face-alignment ({error}): "
            "run `talkinghead setup`, or choose detector=litert, which works offline"
        ) from error
    return FanDetector(**options)
