"""Image quality: pixel errors, PSNR, SSIM, sharpness and temporal jitter.

Shape suffixes: T video frames, H and W pixels.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.image import StructuralSimilarityIndexMeasure

from talkinghead.types import LUMA, Box, UInt8Array

_MAX_PSNR_DB = 100.0
_CHUNK_IMAGES = 25  # SSIM needs about 20 times the memory of the images.


def l1(predicted: Tensor, target: Tensor, weights: Tensor | None = None) -> float:
    """Return the mean absolute difference of images [..., 3, H, W] in [0, 1].

    `weights` [H, W] are the weights of the pixels; None weights all pixels equally.
    """
    difference = (predicted - target).abs()
    if weights is None:
        return float(difference.mean())
    return float((difference * weights).mean() / weights.mean())


def l1_ratio(other: Tensor, own: Tensor, target: Tensor, weights: Tensor | None = None) -> float:
    """Return the `l1` of `other` divided by the `l1` of `own`; NaN without images."""
    return l1(other, target, weights) / max(l1(own, target, weights), 1e-8)


def psnr(predicted: Tensor, target: Tensor) -> float:
    """Return the mean PSNR in dB of images [T, 3, H, W] in [0, 1]; at most 100 per image."""
    values = peak_signal_noise_ratio(
        predicted, target, data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    return float(values.clamp(max=_MAX_PSNR_DB).mean())


def ssim(predicted: Tensor, target: Tensor) -> float:
    """Return the mean structural similarity of images [T, 3, H, W] in [0, 1], at most 1.

    The window is a Gaussian of 11 x 11 pixels (sigma 1.5).

    Paper: Wang et al., "Image quality assessment: from error visibility to structural similarity",
        2004.
    """
    metric = StructuralSimilarityIndexMeasure(data_range=1.0)
    for chunk in zip(predicted.split(_CHUNK_IMAGES), target.split(_CHUNK_IMAGES), strict=True):
        metric.update(*chunk)
    return float(torch.as_tensor(metric.compute()))


def sharpness(images: Tensor) -> float:
    """Return the variance of the luma's Laplacian, averaged over images [T, 3, H, W] in [0, 1].

    The unit is squared grey levels (0 to 255). The variance grows with contrast, so compare it with
    the variance of the real images.
    """
    luma = torch.tensor(LUMA, dtype=images.dtype).view(1, 3, 1, 1) * 255
    grey = (images * luma).sum(dim=1, keepdim=True)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=images.dtype)[None, None]
    return float(F.conv2d(grey, kernel).flatten(1).var(dim=1).mean())


def jitter(predicted: UInt8Array, target: UInt8Array, box: Box) -> float:
    """Return the mean absolute difference of the frame-to-frame changes of two aligned videos.

    The videos are aligned faces uint8 [T, H, W, 3]; `box`, that of the mouth, is excluded.

    Returns:
        Grey levels (0 to 255); NaN with fewer than two frames.
    """
    if len(predicted) < 2:
        return float("nan")
    outside = np.ones(predicted.shape[1:3], dtype=np.bool_)
    outside[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = False
    # Process one frame at a time, to bound memory use.
    differences = (
        p[outside].astype(np.int16) - t[outside] for p, t in zip(predicted, target, strict=True)
    )
    return float(np.mean([np.abs(b - a).mean() for a, b in pairwise(differences)]))
