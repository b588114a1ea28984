"""How far a generated mouth is from the real one, pixel by pixel.

Shape suffixes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkinghead.errors import UsageError


def soft_weight_map(
    size: int,
    peak: float,
    centre: tuple[float, float],
    sigma: tuple[float, float],
) -> Tensor:
    """A bump over the lips on a floor of one, scaled to a mean of one: float [1, size, size].

    Args:
        size: side of the mouth image in pixels.
        peak: how much more a pixel in the bump's middle counts than one in the corner; 1 is flat.
        centre: the middle of the lips (x, y), in fractions of the box.
        sigma: the bump's standard deviations (x, y), in fractions of the box.
    """
    along = (torch.arange(size, dtype=torch.float32) + 0.5) / size
    bump_x, bump_y = (
        torch.exp(-0.5 * ((along - middle) / width) ** 2)
        for middle, width in zip(centre, sigma, strict=True)
    )
    weights = 1 + (peak - 1) * torch.outer(bump_y, bump_x)
    return (weights / weights.mean())[None]


class ReconstructionLoss(nn.Module):
    """L1 that counts the lips more than the cheeks, plus L1 of the image's gradients.

    The gradients' term keeps edges of lips and teeth, which plain L1 blurs at no cost. What moves
    counts more than what is still, where the clip's mean is given: an open mouth is a small part of
    few frames, and without that the mouth learns to open half.

    Args:
        mouth_size: side of the mouth image in pixels.
        gradient_weight: what the gradients' term is multiplied by.
        peak: see `soft_weight_map`.
        centre: see `soft_weight_map`.
        sigma: see `soft_weight_map`.
        motion_gain: how much more a pixel counts for each unit (in the range [0, 1]) that it is
            from the clip's mean.

    Raises:
        UsageError: a weight or the gain is negative, or `peak` is below one.
    """

    weights: Tensor

    def __init__(
        self,
        mouth_size: int = 96,
        gradient_weight: float = 0.5,
        peak: float = 4.0,
        centre: tuple[float, float] = (0.5, 0.45),
        sigma: tuple[float, float] = (0.22, 0.2),
        motion_gain: float = 0.0,
    ) -> None:
        super().__init__()
        if gradient_weight < 0 or peak < 1 or motion_gain < 0:
            raise UsageError(
                "ReconstructionLoss: gradient_weight and motion_gain must be >= 0 and peak >= 1, "
                f"got {gradient_weight}, {motion_gain} and {peak}"
            )
        self.gradient_weight = gradient_weight
        self.motion_gain = motion_gain
        weights = soft_weight_map(mouth_size, peak, (centre[0], centre[1]), (sigma[0], sigma[1]))
        self.register_buffer("weights", weights, persistent=False)

    def motion_weights(self, target: Tensor, mean: Tensor | None) -> Tensor:
        """How much each pixel of [B, T, 3, H, W] counts for its motion: [B, T, 1, H, W], from 1 up.

        Args:
            target: the real mouths, float in [0, 1].
            mean: of their clips, float [B, 3, H, W]; None for no such weights: a 1.
        """
        if mean is None or not self.motion_gain:
            return target.new_ones(())
        moved = (target - mean.unsqueeze(1)).abs().mean(2)
        size = 2 * (target.shape[-1] // 24) + 1
        return 1 + self.motion_gain * F.avg_pool2d(moved, size, 1, size // 2).unsqueeze(2)

    def terms(
        self, predicted: Tensor, target: Tensor, motion: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The unweighted terms, scalars, as `l1` and `gradient`.

        Args:
            predicted: as for `forward`.
            target: the same shape.
            motion: from `motion_weights`.
        """
        difference = predicted - target
        weights = self.weights
        if difference.shape[-2:] != weights.shape[-2:]:
            size = (difference.shape[-2], difference.shape[-1])
            weights = F.interpolate(weights[None], size=size, mode="bilinear")[0]
        if motion is not None and motion.ndim:
            weights = weights * motion
        across = (difference.diff(dim=-1).abs() * weights[..., :, 1:]).mean()
        down = (difference.diff(dim=-2).abs() * weights[..., 1:, :]).mean()
        return {"l1": (difference.abs() * weights).mean(), "gradient": across + down}

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            predicted: float [..., 3, mouth_size, mouth_size] in [0, 1].
            target: the same shape.
        """
        terms = self.terms(predicted, target)
        return terms["l1"] + self.gradient_weight * terms["gradient"]
