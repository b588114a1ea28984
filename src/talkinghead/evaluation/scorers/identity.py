"""Is it still the same person? By a face recogniser whose file the user names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from talkinghead.errors import CheckpointError
from talkinghead.evaluation.scorers.frame_selection import spread
from talkinghead.types import FloatArray, UInt8Array

_SIDE = 112
# ArcFace's template has the middles of the eyes at (38.3, 51.7) and (73.5, 51.5) of 112 pixels; in
# the canonical face they lie at 0.358 and 0.642 of its width, 0.33 of its height.
_EYES_X, _EYES_Y, _EYES_APART = 55.9, 51.6, 35.2
_CANONICAL_EYES_APART, _CANONICAL_EYE_LINE = 0.284, 0.33


class FaceRecogniser:
    """A network of ArcFace's kind as ONNX: aligned faces of 112 x 112 to embeddings.

    InsightFace's files (w600k_r50.onnx, ...) take the default `mean` and `scale`; OpenCV's SFace
    takes 0 and 1.

    Args:
        path: the .onnx file; it is run by OpenCV.
        mean: taken from the pixels' values of 0 to 255 (RGB).
        scale: what they are divided by after that.

    Raises:
        CheckpointError: the file is missing or cannot be read.

    Paper: Deng et al., "ArcFace", 2019, arXiv:1801.07698.
    """

    def __init__(self, path: str | Path, mean: float = 127.5, scale: float = 127.5) -> None:
        self.mean, self.scale = mean, scale
        if not Path(path).is_file():
            raise CheckpointError(
                f"face recogniser {path} does not exist: give an ONNX file of ArcFace's kind, or "
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
        """The mean cosine of the embeddings of the same frames, in [-1, 1]; 1 for equal ones.

        Args:
            predicted: uint8 [T, face, face, 3] RGB, canonical faces.
            target: the same.
        """
        chosen = spread(len(predicted))
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
    """From a canonical face of `size` pixels to the recogniser's: float32 [2, 3]."""
    scale = _EYES_APART / (_CANONICAL_EYES_APART * size)
    shift_x = _EYES_X - scale * 0.5 * size
    shift_y = _EYES_Y - scale * _CANONICAL_EYE_LINE * size
    return np.array([[scale, 0, shift_x], [0, scale, shift_y]], dtype=np.float32)
