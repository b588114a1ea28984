"""Do the generated lips lie where the real ones do?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkinghead.models.checkpoint import load_lips


class LandmarkLoss(nn.Module):
    """Distance of generated to real lips, as one frozen regressor sees both.

    What it gets wrong about a face it gets wrong in both pictures, so that cancels.

    Args:
        checkpoint: a lip regressor's file (`experiment=lip_regressor`), or "default".

    Raises:
        CheckpointError: the file is missing, broken or holds another network.
    """

    def __init__(self, checkpoint: str = "default") -> None:
        super().__init__()
        self.regressor = load_lips(checkpoint).model

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The mean distance, in percent of the mouth crop's side, a scalar.

        Args:
            predicted: float [..., 3, H, W] in [0, 1].
            target: the same shape.
        """
        with torch.no_grad():
            wanted = self.regressor(target.flatten(0, -4))
        difference = self.regressor(predicted.flatten(0, -4)) - wanted
        return 100 * difference.square().sum(-1).add(1e-8).sqrt().mean()
