"""How near pictures come to the real ones, and how sharp and steady they are.

Shape suffixes: T video frames, H and W pixels.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from kornia.metrics import ssim as ssim_map
from torch import Tensor
from torch.nn import functional as F

from talkinghead.types import LUMA, Box, UInt8Array


def l1(predicted: Tensor, target: Tensor, weights: Tensor | None = None) -> float:
    """Mean absolute difference of images [..., 3, H, W] in [0, 1]; in [0, 1], lower is better.

    `weights` [H, W] say how much each place counts; all alike if not given.
    """
    difference = (predicted - target).abs()
    if weights is None:
        return float(difference.mean())
    return float((difference * weights).mean() / weights.mean())


def l1_ratio(other: Tensor, own: Tensor, target: Tensor, weights: Tensor | None = None) -> float:
    """How much further off `other` is than `own`, both as `l1` says; NaN without images."""
    return l1(other, target, weights) / max(l1(own, target, weights), 1e-8)


def psnr(predicted: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, mean over images [T, 3, H, W] in [0, 1]; at most 100."""
    error = (predicted - target).square().flatten(1).mean(dim=1).clamp_min(1e-10)
    return float((-10 * torch.log10(error)).mean())


def ssim(predicted: Tensor, target: Tensor) -> float:
    """Structural similarity of images [T, 3, H, W] in [0, 1], at most 1.

    The window is a Gaussian of 11 x 11 pixels (sigma 1.5); the mean is over pixels and colours.

    Paper: Wang et al., "Image quality assessment: from error visibility to structural similarity",
        2004.
    """
    return float(ssim_map(predicted, target, window_size=11).mean())


def sharpness(images: Tensor) -> float:
    """Variance of the luma's Laplacian, averaged over images [T, 3, H, W] in [0, 1].

    In squared grey levels of 255: it grows with contrast, so compare it with the real mouth's.
    """
    luma = torch.tensor(LUMA, dtype=images.dtype).view(1, 3, 1, 1) * 255
    grey = (images * luma).sum(dim=1, keepdim=True)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=images.dtype)[None, None]
    return float(F.conv2d(grey, kernel).flatten(1).var(dim=1).mean())


def jitter(predicted: UInt8Array, target: UInt8Array, box: Box) -> float:
    """What moves outside the mouth that does not move in the target, or the other way round.

    Args:
        predicted: uint8 [T, H, W, 3], aligned faces.
        target: the same.
        box: the mouth's, left out.

    Returns:
        The mean absolute difference of the two videos' changes from frame to frame, in grey levels
        of 255; NaN with fewer than two frames.
    """
    if len(predicted) < 2:
        return float("nan")
    outside = np.ones(predicted.shape[1:3], dtype=np.bool_)
    outside[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = False
    # How the difference of the two videos changes: a frame at a time, for memory.
    differences = (
        p[outside].astype(np.int16) - t[outside] for p, t in zip(predicted, target, strict=True)
    )
    return float(np.mean([np.abs(b - a).mean() for a, b in pairwise(differences)]))
