"""The face detectors' protocol, and the registry that builds one by name. Imports nothing heavy."""

from __future__ import annotations

from typing import Any, Protocol

from talkinghead.errors import DependencyError, UsageError
from talkinghead.types import Face, UInt8Array

DETECTORS = ("litert", "face_alignment")


class FaceDetector(Protocol):
    """Finds faces with landmarks in a picture. One object serves one thread at a time."""

    topology: str

    def detect(self, image: UInt8Array) -> list[Face]:
        """Search the whole picture.

        Args:
            image: uint8 [H, W, 3] RGB.

        Returns:
            The faces, largest first; empty when there is none.
        """

    def track(self, image: UInt8Array, previous: Face) -> Face | None:
        """Find a face seen in the frame before again, in its region alone: far cheaper.

        Args:
            image: uint8 [H, W, 3] RGB.
            previous: the face in the frame before.

        Returns:
            The face, or None when the region no longer shows one.
        """


def build_detector(name: str = "litert", **options: Any) -> FaceDetector:
    """Build a detector by name.

    Args:
        name: "litert" (468 points, offline, the default) or "face_alignment" (68 points, downloads
            its weights).
        **options: keyword arguments of the detector's class.

    Raises:
        UsageError: the name is unknown.
        DependencyError: what the detector needs is not installed.
    """
    if name not in DETECTORS:
        raise UsageError(f"detector={name} is unknown; choose one of {', '.join(DETECTORS)}")
    if name == "litert":
        try:
            from talkinghead.features.faces.litert_detector import LiteRtDetector
        except ImportError as error:
            raise DependencyError(
                f"detector=litert needs a package that is missing ({error}): "
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
