"""Face detector protocol, construction of a detector by name, and detection in reduced images.

The packages of a detector are imported only when the detector is built.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from talkinghead.errors import DependencyError, UsageError
from talkinghead.media.decoding.video_image import ImageLike, VideoImage, image_around
from talkinghead.types import Box, Face, UInt8Array

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

# Part of an image of a video in which a face is tracked: margin around the face, as a fraction of
# its size, and minimum size of the face in the reduced part, in pixels.
_TRACKING_MARGIN, _TRACKING_SIZE = 0.75, 256
# Minimum length of the longer side of a video's images that are reduced for the detection.
_DETECTION_SIDE = 1280


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


def detect_faces(detector: FaceDetector, image: ImageLike) -> list[Face]:
    """Detect the faces in an image; a large image of a video is reduced first."""
    if not isinstance(image, VideoImage):
        return detector.detect(image)
    height, width, _ = image.shape
    reduction = max(1.0, 2 * max(height, width) / _DETECTION_SIDE)
    part, to_part = image_around(image, np.array([(0, 0), (width, height)]), reduction)
    return [_moved(face, _inverse(to_part)) for face in detector.detect(part)]


def track_face(detector: FaceDetector, image: ImageLike, expected: Face) -> Face | None:
    """Track a face, in the part of an image of a video that is around the face."""
    if not isinstance(image, VideoImage):
        return detector.track(image, expected)
    box = expected.box
    size = max(box.width, box.height)
    margin = _TRACKING_MARGIN * size
    corners = np.array([(box.x0 - margin, box.y0 - margin), (box.x1 + margin, box.y1 + margin)])
    part, to_part = image_around(image, corners, 2 * size / _TRACKING_SIZE)
    face = detector.track(part, _moved(expected, to_part))
    if face is None:
        return None
    return _moved(face, _inverse(to_part))


def _inverse(transform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the inverse of a transform [2, 3] that scales and shifts."""
    scale, offset = transform[[0, 1], [0, 1]], transform[:, 2]
    return np.column_stack([np.diag(1 / scale), -offset / scale])


def _moved(face: Face, transform: npt.NDArray[np.float64]) -> Face:
    """Return a face in another image; the transform [2, 3] scales and shifts."""
    scale, offset = transform[[0, 1], [0, 1]], transform[:, 2]
    box = np.array(face.box) * np.tile(scale, 2) + np.tile(offset, 2)
    points = (face.points * scale + offset).astype(np.float32)
    depth = None if face.depth is None else (face.depth * scale[0]).astype(np.float32)
    return replace(face, box=Box(*box.tolist()), points=points, depth=depth)
