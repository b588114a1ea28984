"""Identity preservation, measured by a face recogniser from a local ONNX file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from talkinghead.errors import CheckpointError
from talkinghead.evaluation.scorers.frame_selection import evenly_spaced
from talkinghead.types import FloatArray, UInt8Array

_SIDE = 112
# Eye centres: (38.3, 51.7) and (73.5, 51.5) of 112 pixels in ArcFace's template; at 0.358 and 0.642
# of the width and 0.33 of the height in the canonical face.
_EYES_X, _EYES_Y, _EYES_APART = 55.9, 51.6, 35.2
_CANONICAL_EYES_APART, _CANONICAL_EYE_LINE = 0.284, 0.33


class FaceRecogniser:
    """ArcFace-style recognition network in ONNX: aligned faces of 112 x 112 pixels to embeddings.

    InsightFace's files (w600k_r50.onnx, ...) use the default `mean` and `scale`; OpenCV's SFace
    uses 0 and 1.

    Args:
        path: the .onnx file, executed by OpenCV.
        mean: subtracted from the pixel values (RGB, 0 to 255).
        scale: divisor applied afterwards.

    Raises:
        CheckpointError: the file is missing or cannot be read.

    Paper: Deng et al., "ArcFace", 2019, arXiv:1801.07698.
    """

    def __init__(self, path: str | Path, mean: float = 127.5, scale: float = 127.5) -> None:
        self.mean, self.scale = mean, scale
        if not Path(path).is_file():
            raise CheckpointError(
                f"face recogniser {path} does not exist: give an ArcFace-style ONNX file, or "
                "identity.path=null"
            )
        try:
            self._network = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise CheckpointError(
                f"face recogniser {path} cannot be read as ONNX ({str(error).splitlines()[0]}): "
                "give another, or identity.path=null"
            ) from error

    def similarity(self, predicted: UInt8Array, target: UInt8Array) -> float:
        """Return the mean cosine similarity of corresponding frames, in [-1, 1].

        Args:
            predicted: uint8 [T, face, face, 3] RGB, canonical faces.
            target: uint8 [T, face, face, 3] RGB.
        """
        chosen = evenly_spaced(len(predicted))
        ours, theirs = self._embed(predicted[chosen]), self._embed(target[chosen])
        return float((ours * theirs).sum(axis=1).mean())

    def _embed(self, faces: UInt8Array) -> FloatArray:
        rows = []
        for face in faces:
            aligned = cv2.warpAffine(
                face, _to_template(len(face)), (_SIDE, _SIDE), borderMode=cv2.BORDER_REPLICATE
            )
            pixels = (aligned.astype(np.float32) - self.mean) / self.scale
            self._network.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
            embedding = self._network.forward().ravel()
            rows.append(embedding / max(float(np.linalg.norm(embedding)), 1e-12))
        return np.stack(rows)


def _to_template(size: int) -> FloatArray:
    """Return the transform [2, 3] from a canonical face of `size` pixels to ArcFace's template."""
    scale = _EYES_APART / (_CANONICAL_EYES_APART * size)
    shift_x = _EYES_X - scale * 0.5 * size
    shift_y = _EYES_Y - scale * _CANONICAL_EYE_LINE * size
    return np.array([[scale, 0, shift_x], [0, scale, shift_y]], dtype=np.float32)
