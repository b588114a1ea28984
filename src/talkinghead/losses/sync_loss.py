"""Contrastive and binary sync losses.

Shape suffixes: B windows of video, A windows of audio (A >= B), D embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    video_BD: Tensor, audio_AD: Tensor, scale: Tensor, ignore_BA: Tensor | None = None
) -> Tensor:
    """Every window of the batch that is not a video's own audio is a negative.

    Args:
        video_BD: unit vectors.
        audio_AD: unit vectors; row i belongs to video i, rows from B on are further negatives.
        scale: inverse temperature.
        ignore_BA: bool, pairs that are no fair negatives (neighbouring shifts, windows that are
            silent alike).

    Returns:
        Scalar: cross entropy of video to audio and audio to video. Chance is about log(A).

    Paper: van den Oord et al., 2018, arXiv:1807.03748; Chung et al., "Perfect match", 2019,
        arXiv:1809.08001.
    """
    logits = scale * video_BD.float() @ audio_AD.float().T
    if ignore_BA is not None:
        logits = logits.masked_fill(ignore_BA, float("-inf"))
    num_videos = video_BD.shape[0]
    target = torch.arange(num_videos, device=logits.device)
    to_audio = F.cross_entropy(logits, target)
    to_video = F.cross_entropy(logits[:, :num_videos].T, target)
    return 0.5 * (to_audio + to_video)


def cosine_bce(video_BD: Tensor, audio_BD: Tensor, target_B: Tensor, scale: Tensor) -> Tensor:
    """Binary cross entropy on the scaled cosine as a logit.

    `target_B` is 1 for pairs in sync, 0 else.

    Paper: Prajwal et al., 2020, arXiv:2008.10010, who use the cosine of rectified embeddings as a
        probability; as a logit it can express both answers.
    """
    cosine = (video_BD.float() * audio_BD.float()).sum(1)
    return F.binary_cross_entropy_with_logits(scale * (cosine - 0.5), target_B.float())


def silent(audio_BTCK: Tensor, num_mels: int, threshold: float = -2.5) -> Tensor:
    """Which windows hold no speech: bool [B], from the mel's mean over its louder half of bins."""
    mel = audio_BTCK[:, :, :num_mels].mean(dim=(1, 3))
    return mel.topk(max(1, num_mels // 2), dim=1).values.mean(1) < threshold
