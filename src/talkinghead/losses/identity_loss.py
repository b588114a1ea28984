"""Identity loss."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.models.encoders import FaceEncoder


class IdentityLoss(nn.Module):
    """1 minus the cosine similarity of two faces' features in a frozen face encoder.

    The similarity is averaged over the positions of the last feature map.

    Args:
        backbone: see `FaceEncoder`.
        weights: "imagenet" (downloaded by torchvision) or the path of a torchvision state dict,
            for example of a face recognition network.

    Raises:
        UsageError: the backbone is unknown.
        DependencyError: the weights are not available.

    Paper: Deng et al., "ArcFace", 2019, arXiv:1801.07698, for the cosine of embeddings.
    """

    def __init__(self, backbone: str = "mobilenet_v3", weights: str | Path = "imagenet") -> None:
        super().__init__()
        self.encoder = FaceEncoder(backbone, dim=1, weights=weights).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> IdentityLoss:
        """Stay in evaluation mode regardless of `mode`."""
        return super().train(False)

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar in [0, 2].

        Args:
            predicted: faces, float [N, 3, H, W] in [0, 1].
            target: the same shape; it is detached.
        """
        with torch.no_grad():
            expected = self._embed(target)
        return 1 - F.cosine_similarity(self._embed(predicted), expected, dim=1).mean()

    def _embed(self, faces: Tensor) -> Tensor:
        return self.encoder(faces).maps[-1].mean(dim=(2, 3))
