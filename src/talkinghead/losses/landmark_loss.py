"""Lip landmark loss."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from talkinghead.models.checkpoint import load_lip_regressor


class LandmarkLoss(nn.Module):
    """Distance between the lip landmarks of generated and real mouths.

    One frozen regressor predicts both, so its systematic errors cancel.

    Args:
        checkpoint: path of a lip regressor (`experiment=lip_regressor`), or "default" for the
            packaged one.

    Raises:
        CheckpointError: the file is missing, broken or holds another network.
    """

    def __init__(self, checkpoint: str | Path = "default") -> None:
        super().__init__()
        self.regressor = load_lip_regressor(checkpoint).model

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean distance in percent of the mouth image's side, a scalar.

        Args:
            predicted: float [..., 3, H, W] in [0, 1].
            target: the same shape.
        """
        with torch.no_grad():
            expected = self.regressor(target.flatten(0, -4))
        difference = self.regressor(predicted.flatten(0, -4)) - expected
        return 100 * difference.square().sum(-1).add(1e-8).sqrt().mean()
