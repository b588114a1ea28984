"""Differentiable lip landmark regressor.

Shape suffixes: N images, P points, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.features.faces.alignment import NUM_LIP_POINTS
from talkinghead.models.encoders import conv_layers


class LipRegressor(nn.Module):
    """Differentiable regressor of the twenty lip landmarks of a mouth image, for losses.

    The landmark detectors run outside torch and give no gradient. Each point is the mean position
    of a heat map, so the points shift with the image.

    Args:
        channels: channel widths of the three stages, at 1/2, 1/4 and 1/4 of the image size.

    Paper: Nibali et al., "Numerical coordinate regression with convolutional neural networks",
        2018, arXiv:1801.07372.
    """

    def __init__(self, channels: Sequence[int] = (24, 48, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (3, *channels, channels[-1], channels[-1])
        # The last layers are dilated, so that each point depends on the whole mouth.
        for index, (stride, dilation) in enumerate(((2, 1), (2, 1), (1, 1), (1, 2), (1, 4))):
            layers += conv_layers(widths[index], widths[index + 1], stride, dilation)
        self.trunk = nn.Sequential(*layers)
        self.heat = nn.Conv2d(channels[-1], NUM_LIP_POINTS, 1)

    def forward(self, mouths: Tensor) -> Tensor:
        """Return lip points [N, 20, 2] of mouths [N, 3, H, W] in [0, 1].

        The points (x, y) are fractions of the image size.
        """
        heat_NPHW = self.heat(self.trunk(mouths - 0.5)).float()
        height, width = heat_NPHW.shape[-2:]
        weight_NPHW = F.softmax(heat_NPHW.flatten(2), dim=2).unflatten(2, (height, width))
        x, y = (
            (torch.arange(size, device=heat_NPHW.device) + 0.5) / size for size in (width, height)
        )
        return torch.stack([weight_NPHW.sum(2) @ x, weight_NPHW.sum(3) @ y], dim=-1)
