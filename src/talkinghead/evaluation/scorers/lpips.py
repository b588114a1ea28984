"""LPIPS: learned perceptual image similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from talkinghead.evaluation.scorers.frame_selection import evenly_spaced
from talkinghead.losses.perceptual_loss import PerceptualLoss, load_lpips_heads

_NUM_BLOCKS = 5


class Lpips:
    """Shift-tolerant LPIPS on VGG16, from the package stlpips-pytorch.

    Its values differ from LPIPS on AlexNet or on the original VGG: compare them within one report
    only.

    Args:
        device: torch device.

    Raises:
        DependencyError: the package is not installed.
        CheckpointError: its weight file is damaged.

    Paper: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        2018, arXiv:1801.03924; Ghildyal and Liu, "Shift-tolerant Perceptual Similarity Metric",
        2022, arXiv:2207.13686.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._heads = [head.to(device) for head in load_lpips_heads()]
        self._network = PerceptualLoss("offline", num_blocks=_NUM_BLOCKS).to(device).eval()

    @torch.inference_mode()
    def __call__(self, predicted: Tensor, target: Tensor) -> float:
        """Return the mean over evenly spaced images; 0 for equal images, lower is better.

        Args:
            predicted: float [T, 3, H, W] in [0, 1].
            target: float [T, 3, H, W] in [0, 1].
        """
        chosen = evenly_spaced(len(predicted))
        device = self._heads[0].device
        pairs = zip(
            self._heads,
            self._network.features(predicted[chosen].to(device)),
            self._network.features(target[chosen].to(device)),
            strict=True,
        )
        return sum(
            float((head * (F.normalize(a) - F.normalize(b)).square()).sum(dim=1).mean())
            for head, a, b in pairs
        )
