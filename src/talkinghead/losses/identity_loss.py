"""Is it still the same person?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.models.encoders import FaceEncoder


class IdentityLoss(nn.Module):
    """One less the cosine of two faces in a frozen face encoder's last map, averaged over places.

    Args:
        backbone: see `FaceEncoder`.
        weights: "imagenet" (torchvision downloads them) or the path of a torchvision state dict,
            as of a network that was trained to tell faces apart.

    Raises:
        UsageError: the backbone is unknown.
        DependencyError: the weights cannot be had.

    Paper: Deng et al., "ArcFace", 2019, arXiv:1801.07698, for the cosine of embeddings.
    """

    def __init__(self, backbone: str = "mobilenet_v3", weights: str = "imagenet") -> None:
        super().__init__()
        self.encoder = FaceEncoder(backbone, dim=1, weights=weights).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> IdentityLoss:
        """It is always in evaluation mode, whatever Lightning sets the rest to."""
        return super().train(False)

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """A scalar in [0, 2].

        Args:
            predicted: faces, float [N, 3, H, W] in [0, 1].
            target: the same shape; no gradient goes through it.
        """
        with torch.no_grad():
            wanted = self._embed(target)
        return 1 - F.cosine_similarity(self._embed(predicted), wanted, dim=1).mean()

    def _embed(self, faces: Tensor) -> Tensor:
        return self.encoder(faces).maps[-1].mean(dim=(2, 3))
