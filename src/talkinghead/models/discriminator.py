"""Real or generated, patch by patch.

Shape suffixes: N frames, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """Patch logits on the mouth, and the activations that feature matching compares.

    Spectral normalisation keeps it from outrunning the generator.

    Paper: Isola et al., 2017, arXiv:1611.07004; Miyato et al., 2018, arXiv:1802.05957.
    """

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)),
                nn.LeakyReLU(0.2),
            )
            for in_channels, out_channels in zip((3, *channels), channels, strict=False)
        )
        self.head = spectral_norm(nn.Conv2d(channels[-1], 1, 3, padding=1))

    def forward(self, mouth: Tensor) -> tuple[Tensor, list[Tensor]]:
        """RGB float [N, 3, H, W] in [0, 1] to logits [N, 1, h, w] and the stages' activations."""
        x = mouth * 2 - 1
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.head(x), features
