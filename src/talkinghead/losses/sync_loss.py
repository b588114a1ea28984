"""Contrastive and binary sync losses.

Shape suffixes: B windows of video, A windows of audio (A >= B), D embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SILENCE = -2.5
"""Mean log-mel of the louder half of the bins below which a window is silent."""


def info_nce(
    video_BD: Tensor, audio_AD: Tensor, scale: Tensor, ignore_BA: Tensor | None = None
) -> Tensor:
    """Return the InfoNCE loss: the mean cross entropy of video to audio and audio to video.

    The negatives of a video window are all audio windows except the window of the same index. The
    loss of random embeddings is about log(A).

    Args:
        video_BD: unit vectors.
        audio_AD: unit vectors; row i belongs to video i, rows from B on are additional negatives.
        scale: inverse temperature.
        ignore_BA: bool, pairs to exclude from the negatives, such as two silent windows.

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
    """Return the binary cross entropy with the scaled cosine of unit vectors as the logit.

    The target is 1 for pairs in sync, else 0.

    Paper: Prajwal et al., 2020, arXiv:2008.10010, who use the cosine of rectified embeddings as a
        probability.
    """
    cosine = (video_BD.float() * audio_BD.float()).sum(1)
    return F.binary_cross_entropy_with_logits(scale * (cosine - 0.5), target_B.float())


def silent_windows(audio_BTCK: Tensor, num_mels: int) -> Tensor:
    """Return a mask, bool [B], of silent windows.

    A window is silent if the mean of the louder half of its mel bins is below `_SILENCE`.
    """
    mel = audio_BTCK[:, :, :num_mels].mean(dim=(1, 3))
    return mel.topk(max(1, num_mels // 2), dim=1).values.mean(1) < _SILENCE
