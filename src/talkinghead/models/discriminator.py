"""Real or generated, patch by patch.

Shape suffixes: N frames, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

_REACH = 4
_GAIN = 3.0
"""Local contrast: how many pixels around make up the mean, and what the difference is times."""


class Discriminator(nn.Module):
    """Patch logits on the mouth and, by choice, on the whole face with that mouth in it.

    The mouth's sees skin and teeth, the face's whether the mouth belongs there. Both see how each
    pixel differs from those around it, so that no light or colour of a face hides what they are to
    learn: whether its edges are a camera's. Both also give the activations that feature matching
    compares.

    Args:
        channels: widths of the mouth's network, a stage each.
        face_channels: of the face's; None for none.

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
        """What it makes of mouths and of the faces that they were put into.

        Args:
            mouth: RGB float [N, 3, H, W] in [0, 1].
            face: RGB float [N, 3, H', W'] in [0, 1]; not looked at where there is no network for
                it.

        Returns:
            Logits [N, 1, h, w], one tensor a network, and all networks' activations.
        """
        logits, features = self.mouth(mouth)
        if self.face is None:
            return [logits], features
        more, seen = self.face(face)
        return [logits, more], [*features, *seen]


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
        x = _GAIN * local_contrast(image, _REACH)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.head(x), features


def local_contrast(image: Tensor, reach: int) -> Tensor:
    """An image [N, C, H, W] less its mean over 2 * reach + 1 pixels each way."""
    around = F.pad(image, (reach,) * 4, mode="replicate")
    return image - F.avg_pool2d(around, 2 * reach + 1, 1)
