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

    The weights are one fixed map, never drawn from the real mouth's landmarks.
    The gradients' term keeps edges of lips and teeth, which plain L1 blurs at no cost.

    Args:
        mouth_size: side of the mouth image in pixels.
        gradient_weight: what the gradients' term is multiplied by.
        peak: see `soft_weight_map`.
        centre: see `soft_weight_map`.
        sigma: see `soft_weight_map`.

    Raises:
        UsageError: a weight is negative or `peak` is below one.
    """

    weights: Tensor

    def __init__(
        self,
        mouth_size: int = 96,
        gradient_weight: float = 0.5,
        peak: float = 4.0,
        centre: tuple[float, float] = (0.5, 0.45),
        sigma: tuple[float, float] = (0.22, 0.2),
    ) -> None:
        super().__init__()
        if gradient_weight < 0 or peak < 1:
            raise UsageError(
                "ReconstructionLoss: gradient_weight must be >= 0 and peak >= 1, "
                f"got {gradient_weight} and {peak}"
            )
        self.gradient_weight = gradient_weight
        weights = soft_weight_map(mouth_size, peak, (centre[0], centre[1]), (sigma[0], sigma[1]))
        self.register_buffer("weights", weights, persistent=False)

    def terms(self, predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The unweighted terms, scalars, as `l1` and `gradient`; arguments as for `forward`."""
        predicted_NCHW, target_NCHW = predicted.flatten(0, -4), target.flatten(0, -4)
        difference_NCHW = predicted_NCHW - target_NCHW
        weights = self.weights
        if difference_NCHW.shape[-2:] != weights.shape[-2:]:
            size = (difference_NCHW.shape[-2], difference_NCHW.shape[-1])
            weights = F.interpolate(weights[None], size=size, mode="bilinear")[0]
        across = (difference_NCHW.diff(dim=-1).abs() * weights[..., :, 1:]).mean()
        down = (difference_NCHW.diff(dim=-2).abs() * weights[..., 1:, :]).mean()
        return {"l1": (difference_NCHW.abs() * weights).mean(), "gradient": across + down}

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            predicted: float [..., 3, mouth_size, mouth_size] in [0, 1].
            target: the same shape.
        """
        terms = self.terms(predicted, target)
        return terms["l1"] + self.gradient_weight * terms["gradient"]
