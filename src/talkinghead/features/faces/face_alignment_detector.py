"""Face detector of the package face-alignment: S3FD for faces and FAN for 68 landmarks.

Paper: Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D face alignment problem?",
2017, arXiv:1703.07332.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
import torch
from face_alignment import FaceAlignment, LandmarksType
from face_alignment.api import models_urls
from face_alignment.detection.sfd.sfd_detector import models_urls as detector_urls

from talkinghead.errors import DependencyError
from talkinghead.types import Box, Face, FloatArray, UInt8Array


class FaceAlignmentDetector:
    """Face detector with S3FD and FAN, for GPUs or where 68 landmarks are needed.

    Safe for concurrent callers. The weights (about 180 MB) are downloaded at first use into torch
    hub's checkpoint folder; files of these names that are already there are used offline.

    Args:
        device: torch device.
        flip_input: average with the mirrored face, which is more stable at twice the cost.
        min_score: minimum mean peak of the landmark heat maps of a tracked face.

    Raises:
        DependencyError: the weights are missing and cannot be downloaded.
    """

    topology = "ibug68"

    def __init__(
        self, *, device: str = "cpu", flip_input: bool = True, min_score: float = 0.2
    ) -> None:
        detector_weights = _fetch(detector_urls["s3fd"])
        _fetch(models_urls["2DFAN-4"])
        self._network = FaceAlignment(
            LandmarksType.TWO_D,
            device=device,
            flip_input=flip_input,
            compile=False,
            # With a path, the weights are loaded with weights_only=True instead of unpickled.
            face_detector_kwargs={"path_to_detector": str(detector_weights)},
        )
        self.min_score = min_score
        self._lock = Lock()

    def detect(self, image: UInt8Array) -> list[Face]:
        """Return the faces in an image, largest first; see `FaceDetector.detect`."""
        with self._lock:
            rows = self._network.face_detector.detect_from_image(image.copy())
        boxes = [row[:4] for row in rows]
        faces = self._fit(image, boxes) if boxes else []
        return sorted(faces, key=lambda face: -face.box.width * face.box.height)

    def track(self, image: UInt8Array, previous: Face) -> Face | None:
        """Find the face `previous` in the next frame; see `FaceDetector.track`."""
        faces = self._fit(image, [np.array(previous.box)])
        return faces[0] if faces else None

    def _fit(self, image: UInt8Array, boxes: list[FloatArray]) -> list[Face]:
        """Run FAN in each box and return the faces with a sufficient score."""
        with self._lock:
            found, scores, _ = self._network.get_landmarks_from_image(
                image, detected_faces=boxes, return_landmark_score=True
            )
        faces = []
        for points, peaks in zip(found, scores, strict=True):
            score = float(np.clip(np.mean(peaks), 0, 1))
            if score >= self.min_score:
                xy = np.asarray(points, dtype=np.float32)[:, :2]
                (x0, y0), (x1, y1) = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
                # Extend the box above the landmarks to the forehead, as the boxes of S3FD do.
                box = Box(x0, y0 - 0.2 * (y1 - y0), x1, y1)
                faces.append(Face(box, xy, score, self.topology))
        return faces


def _fetch(url: str) -> Path:
    """Return the path of a weight file; download the file with a hash check if it is missing."""
    name = url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            hash_prefix = Path(name).stem.rsplit("-", 1)[-1]
            torch.hub.download_url_to_file(url, str(path), hash_prefix, progress=False)
        except (OSError, RuntimeError) as error:
            raise DependencyError(
                f"detector=face_alignment (package face-alignment) cannot download its weights "
                f"{name} ({error}): put the file from {url} into {path.parent}, or choose "
                "detector=litert, which needs no network"
            ) from error
    return path
