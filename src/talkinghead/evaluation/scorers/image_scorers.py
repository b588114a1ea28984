"""Scores of faces and mouths that need a network: LPIPS, identity and FID."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance

from talkinghead.errors import CheckpointError, DependencyError
from talkinghead.evaluation.scorers.syncnet import load_weights
from talkinghead.features.faces.alignment import as_tensor
from talkinghead.losses.perceptual_loss import PerceptualLoss, load_lpips_heads
from talkinghead.types import FloatArray, UInt8Array

MAX_FRAMES = 10
"""Number of frames scored per clip, few because the scores are slow and vary little."""
_LPIPS_BLOCKS = 5
_SIDE = 299
_BATCH = 5
_RECOGNISER_SIDE = 112
# In ArcFace's template of 112 x 112 pixels, the eye centres are (38.3, 51.7) and (73.5, 51.5). In
# the canonical face, they are at 0.358 and 0.642 of the width and at 0.33 of the height.
_EYES_X, _EYES_Y, _EYES_APART = 55.9, 51.6, 35.2
_CANONICAL_EYES_APART, _CANONICAL_EYE_LINE = 0.284, 0.33


def evenly_spaced(num_frames: int) -> npt.NDArray[np.intp]:
    """Return at most `MAX_FRAMES` evenly spaced frame indices, including the first and the last."""
    chosen = np.linspace(0, num_frames - 1, min(MAX_FRAMES, num_frames))
    return np.rint(chosen).astype(np.intp)


class Lpips:
    """Shift-tolerant LPIPS on VGG16, from the package stlpips-pytorch.

    The values differ from those of LPIPS on AlexNet or on the original VGG: compare values only
    within one report.

    Raises:
        DependencyError: the package is not installed.
        CheckpointError: the weight file of the package is damaged.

    Paper: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        2018, arXiv:1801.03924; Ghildyal and Liu, "Shift-tolerant Perceptual Similarity Metric",
        2022, arXiv:2207.13686.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._heads = [head.to(device) for head in load_lpips_heads()]
        self._network = PerceptualLoss("offline", num_blocks=_LPIPS_BLOCKS).to(device).eval()

    @torch.inference_mode()
    def __call__(self, predicted: Tensor, target: Tensor) -> float:
        """Return the mean over evenly spaced images [T, 3, H, W] in [0, 1]; 0 if all are equal."""
        chosen = evenly_spaced(len(predicted))
        device = self._heads[0].device
        pairs = zip(
            self._heads,
            self._network.features(predicted[chosen].to(device)),
            self._network.features(target[chosen].to(device)),
            strict=True,
        )
        return sum(
            float((head * (F.normalize(a) - F.normalize(b)).square()).sum(dim=1).mean())
            for head, a, b in pairs
        )


class FaceRecogniser:
    """An ArcFace-style recognition network in ONNX for aligned faces of 112 x 112 pixels.

    OpenCV runs it. From pixel values (RGB, 0 to 255), `mean` is subtracted, and the result is
    divided by `scale`.

    Raises:
        CheckpointError: the file is missing or cannot be read.

    Paper: Deng et al., "ArcFace", 2019, arXiv:1801.07698.
    """

    def __init__(self, path: str | Path, mean: float, scale: float) -> None:
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
                "give another file, or identity.path=null"
            ) from error

    def __call__(self, predicted: UInt8Array, target: UInt8Array) -> float:
        """Return the mean cosine similarity of canonical faces uint8 [T, face, face, 3] RGB."""
        chosen = evenly_spaced(len(predicted))
        ours, theirs = self._embed(predicted[chosen]), self._embed(target[chosen])
        return float((ours * theirs).sum(axis=1).mean())

    def _embed(self, faces: UInt8Array) -> FloatArray:
        rows = []
        for face in faces:
            aligned = cv2.warpAffine(
                face,
                _to_template(len(face)),
                (_RECOGNISER_SIDE, _RECOGNISER_SIDE),
                borderMode=cv2.BORDER_REPLICATE,
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


class Inception:
    """Inception v3 of torchvision without the last layer: 2048 features per image.

    Args:
        path: torchvision's weight file (inception_v3_google-0cc3c7bd.pth).
        device: torch device.

    Raises:
        CheckpointError: the file is missing or is not the state dict of an Inception v3.
        DependencyError: torchvision is not installed.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        try:
            from torchvision.models import inception_v3
        except ImportError as error:
            raise DependencyError(
                f"inception_path needs torchvision ({error}): pip install 'talkinghead[vision]', "
                "or inception_path=null"
            ) from error
        network = load_weights(
            partial(inception_v3, weights=None, init_weights=False),
            path,
            "torchvision's inception_v3_google-0cc3c7bd.pth, or inception_path=null",
        )
        network.fc = nn.Identity()
        self._network, self._device = network.to(device), device

    @torch.inference_mode()
    def features(self, faces: UInt8Array) -> FloatArray:
        """Return features [n, 2048] of evenly spaced frames of a clip uint8 [T, H, W, 3]."""
        chosen = faces[evenly_spaced(len(faces))]
        rows = []
        for images in as_tensor(chosen).to(self._device).split(_BATCH):
            scaled = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True)
            rows.append(self._network(scaled * 2 - 1).cpu().numpy())
        return np.concatenate(rows)


def frechet_distance(predicted: FloatArray, target: FloatArray) -> float:
    """Return the Fréchet distance of Gaussians fitted to features float [n, D] and [m, D].

    The distance is 0 for equal distributions, and NaN if either input has fewer than two rows.

    Paper: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium", 2017, arXiv:1706.08500.
    """
    if min(len(predicted), len(target)) < 2:
        return float("nan")
    distance = FrechetInceptionDistance(_StoredFeatures(predicted.shape[1]))
    distance.update(torch.from_numpy(predicted), real=False)
    distance.update(torch.from_numpy(target), real=True)
    return max(0.0, float(distance.compute()))


class _StoredFeatures(nn.Identity):
    """A feature extractor that returns precomputed features unchanged."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
