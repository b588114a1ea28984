"""Pixel-wise reconstruction loss of the mouth.

Shape suffixes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkinghead.errors import UsageError
from talkinghead.value_rules import NonNegativeFloat


class ReconstructionLoss(nn.Module):
    """Reconstruction loss: L1 with higher weights on the lips, and L1 of the image gradients.

    The gradient term preserves edges of lips and teeth, which plain L1 blurs. Moving pixels can be
    weighted up: an open mouth covers few pixels of few frames, and without this the generator
    underestimates the opening.

    Args:
        mouth_size: side of the mouth image in pixels.
        peak: weight on the lips, a Gaussian, relative to the corners; 1 is flat.
        centre: centre of the Gaussian (x, y), as fractions of the image.
        sigma: standard deviations of the Gaussian (x, y), as fractions of the image.
        motion_gain: additional weight of a pixel per unit of its distance, in [0, 1], from the
            clip's mean.

    Raises:
        UsageError: the gain is negative, or `peak` is below one.
    """

    weights: Tensor

    def __init__(
        self,
        mouth_size: int = 96,
        peak: float = 4.0,
        centre: tuple[float, float] = (0.5, 0.45),
        sigma: tuple[float, float] = (0.22, 0.2),
        motion_gain: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        if peak < 1 or motion_gain < 0:
            raise UsageError(
                "ReconstructionLoss: motion_gain must be >= 0 and peak >= 1, "
                f"got {motion_gain} and {peak}"
            )
        self.motion_gain = motion_gain
        along = (torch.arange(mouth_size, dtype=torch.float32) + 0.5) / mouth_size
        bump_x, bump_y = (
            torch.exp(-0.5 * ((along - middle) / width) ** 2)
            for middle, width in zip(centre, sigma, strict=True)
        )
        weights = 1 + (peak - 1) * torch.outer(bump_y, bump_x)
        self.register_buffer("weights", (weights / weights.mean())[None], persistent=False)

    def motion_weights(self, target: Tensor, mean: Tensor) -> Tensor:
        """Return pixel weights [B, T, 1, H, W] that increase with motion, or 1 if the gain is 0.

        The target has the real mouths, float [B, T, 3, H, W] in [0, 1], and `mean` the mean mouths
        of their clips, float [B, 3, H, W].
        """
        if not self.motion_gain:
            return target.new_ones(())
        moved = (target - mean.unsqueeze(1)).abs().mean(2)
        size = 2 * (target.shape[-1] // 24) + 1
        return 1 + self.motion_gain * F.avg_pool2d(moved, size, 1, size // 2).unsqueeze(2)

    def forward(
        self, predicted: Tensor, target: Tensor, motion: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the unweighted terms `l1` and `gradient`, scalars.

        Both are float [..., 3, mouth_size, mouth_size] in [0, 1]; `motion` is a result of
        `motion_weights`.
        """
        difference = predicted - target
        weights = self.weights
        if difference.shape[-2:] != weights.shape[-2:]:
            weights = F.interpolate(weights[None], difference.shape[-2:], mode="bilinear")[0]
        if motion is not None and motion.ndim:
            weights = weights * motion
        across = (difference.diff(dim=-1).abs() * weights[..., :, 1:]).mean()
        down = (difference.diff(dim=-2).abs() * weights[..., 1:, :]).mean()
        return {"l1": (difference.abs() * weights).mean(), "gradient": across + down}
