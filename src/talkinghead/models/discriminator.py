"""Patch discriminator of real and generated images.

Shape suffixes: N frames, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

_RADIUS = 4
_GAIN = 3.0
"""Parameters of the local contrast: radius of the local mean in pixels, and gain."""


class Discriminator(nn.Module):
    """Patch discriminator for mouth images and, optionally, for whole faces with these mouths.

    The inputs are reduced to local contrast, so the discriminator cannot rely on lighting or
    colour. It also returns the activations for feature matching.

    Args:
        channels: channel widths of the mouth network, one per stage.
        face_channels: channel widths of the face network; None for no such network.

    Paper: Isola et al., 2017, arXiv:1611.07004.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512),
        face_channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.mouth = _Patches(channels)
        self.face = _Patches(face_channels) if face_channels else None

    def forward(self, mouth: Tensor, face: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the logits [N, 1, h, w] of each network, and the activations of all layers.

        The mouths are RGB float [N, 3, H, W] in [0, 1], and so are the faces [N, 3, H', W'], which
        are ignored without a face network.
        """
        logits, features = self.mouth(mouth)
        if self.face is None:
            return [logits], features
        face_logits, face_features = self.face(face)
        return [logits, face_logits], [*features, *face_features]


class _Patches(nn.Module):
    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
            for before, width in pairwise((3, *channels))
        )
        self.head = nn.Conv2d(channels[-1], 1, 3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        # Local contrast: each pixel minus the mean over a square around the pixel.
        around = F.pad(image, (_RADIUS,) * 4, mode="replicate")
        x = _GAIN * (image - F.avg_pool2d(around, 2 * _RADIUS + 1, 1))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.head(x), features
