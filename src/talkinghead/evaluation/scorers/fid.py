"""Fréchet inception distance, with Inception v3 weights from a local file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.models import inception_v3

from talkinghead.errors import CheckpointError
from talkinghead.evaluation.scorers.frame_selection import evenly_spaced
from talkinghead.evaluation.scorers.syncnet import UNREADABLE
from talkinghead.features.faces.alignment import as_tensor
from talkinghead.types import FloatArray, UInt8Array

_SIDE = 299
_BATCH = 5


class Inception:
    """torchvision's Inception v3 up to its last pooling: 2048 features per image.

    Args:
        path: torchvision's weight file (inception_v3_google-0cc3c7bd.pth).
        device: torch device.

    Raises:
        CheckpointError: the file is missing or is not the state dict of an Inception v3.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        # The meta device allocates no memory; the loaded tensors replace the parameters.
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
        """Return float32 [n, 2048] for evenly spaced frames of a clip uint8 [T, H, W, 3]."""
        chosen = faces[evenly_spaced(len(faces))]
        rows = []
        for first in range(0, len(chosen), _BATCH):
            images = as_tensor(chosen[first : first + _BATCH]).to(self._device)
            scaled = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True)
            rows.append(self._network(scaled * 2 - 1).cpu().numpy())
        return np.concatenate(rows)


def frechet_distance(predicted: FloatArray, target: FloatArray) -> float:
    """Return the Fréchet distance of Gaussians fitted to features; 0 for equal distributions.

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
    distance = FrechetInceptionDistance(_StoredFeatures(predicted.shape[1]))
    distance.update(torch.from_numpy(predicted), real=False)
    distance.update(torch.from_numpy(target), real=True)
    return max(0.0, float(distance.compute()))


class _StoredFeatures(nn.Identity):
    """Feature extractor for features that were computed before."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
