"""Patch discriminator of real and generated images.

Shape suffixes: N frames, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

_RADIUS = 4
_GAIN = 3.0
"""Local contrast: radius of the mean in pixels, and the factor of the difference."""


class Discriminator(nn.Module):
    """Patch discriminator on the mouth and, optionally, on the whole face with that mouth.

    Its inputs are reduced to local contrast, so it cannot rely on the lighting or colour of a face.
    It also returns the activations for feature matching.

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
        """Return logits and activations of mouths and of the faces that contain them.

        Args:
            mouth: RGB float [N, 3, H, W] in [0, 1].
            face: RGB float [N, 3, H', W'] in [0, 1]; ignored without a face network.

        Returns:
            Logits [N, 1, h, w] of each network, and all networks' activations.
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
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)
            )
            for in_channels, out_channels in zip((3, *channels), channels, strict=False)
        )
        self.head = nn.Conv2d(channels[-1], 1, 3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = _GAIN * local_contrast(image, _RADIUS)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.head(x), features


def local_contrast(image: Tensor, radius: int) -> Tensor:
    """Subtract from an image [N, C, H, W] its mean over squares of 2 * radius + 1 pixels."""
    around = F.pad(image, (radius,) * 4, mode="replicate")
    return image - F.avg_pool2d(around, 2 * radius + 1, 1)
