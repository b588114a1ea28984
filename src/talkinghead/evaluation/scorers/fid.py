"""FID: how far a system's frames are from real ones as a crowd, by a file that the user names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import inception_v3

from talkinghead.errors import CheckpointError
from talkinghead.evaluation.scorers.frame_selection import spread
from talkinghead.evaluation.scorers.syncnet import UNREADABLE
from talkinghead.features.faces.alignment import as_tensor
from talkinghead.types import FloatArray, UInt8Array

_SIDE = 299
_BATCH = 5


class Inception:
    """torchvision's Inception v3 up to its last pooling: 2048 numbers a picture.

    Args:
        path: torchvision's weight file (inception_v3_google-0cc3c7bd.pth).
        device: torch's name.

    Raises:
        CheckpointError: the file is missing or no such state dict.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        # Without memory until the file's own tensors take their places.
        with torch.device("meta"):
            network = inception_v3(weights=None, init_weights=False)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict(state, assign=True)
        except UNREADABLE as error:
            raise CheckpointError(
                f"Inception weights {path} cannot be used ({str(error).splitlines()[0]}): give "
                "torchvision's inception_v3_google-0cc3c7bd.pth, or inception_path=null"
            ) from error
        network.fc = nn.Identity()
        self._network = network.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def features(self, faces: UInt8Array) -> FloatArray:
        """Of evenly spaced frames of a clip, uint8 [T, H, W, 3]: float32 [n, 2048]."""
        chosen = faces[spread(len(faces))]
        rows = []
        for first in range(0, len(chosen), _BATCH):
            images = as_tensor(chosen[first : first + _BATCH]).to(self._device)
            scaled = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True)
            rows.append(self._network(scaled * 2 - 1).cpu().numpy())
        return np.concatenate(rows)


def frechet_distance(predicted: FloatArray, target: FloatArray) -> float:
    """The Fréchet distance of two Gaussians that are fitted to features; 0 for the same ones.

    The trace of the covariances' root is the sum of the singular values of a product of the
    features themselves: exact, and well behaved with fewer pictures than features.

    Args:
        predicted: float [n, D].
        target: float [m, D].

    Returns:
        NaN where either has fewer than two rows.

    Paper: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium", 2017, arXiv:1706.08500.
    """
    if min(len(predicted), len(target)) < 2:
        return float("nan")
    mean_a, spread_a = _gaussian(predicted)
    mean_b, spread_b = _gaussian(target)
    root = np.linalg.svd(spread_a @ spread_b.T, compute_uv=False).sum()
    traces = np.square(spread_a).sum() + np.square(spread_b).sum()
    return max(0.0, float(np.square(mean_a - mean_b).sum() + traces - 2 * root))


def _gaussian(
    features: FloatArray,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The mean [D], and a matrix X [at most D, D] with X^T X the covariance."""
    rows = features.astype(np.float64)
    mean = rows.mean(axis=0)
    centred = (rows - mean) / np.sqrt(len(rows) - 1)
    if len(rows) <= rows.shape[1]:
        return mean, centred
    # More pictures than features need no more rows than features: a triangle has the same X^T X.
    return mean, np.linalg.qr(centred).R
