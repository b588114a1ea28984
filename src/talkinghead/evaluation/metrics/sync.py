"""LSE-D, LSE-C and the offset, from the embeddings of any sync expert.

Shape suffixes: T video frames, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkinghead.types import FloatArray


@dataclass(frozen=True)
class SyncScores:
    """How well sound and lips agree, in an expert's space.

    Attributes:
        lse_d: the least mean distance over all shifts; lower is better.
        lse_c: the median over shifts minus the least; higher is better.
        offset: the shift with the least distance, in frames: positive where the sound comes late.
        distance_at_zero: the mean distance without a shift, which forgives no offset.
    """

    lse_d: float
    lse_c: float
    offset: int
    distance_at_zero: float


def sync_scores(audio: FloatArray, video: FloatArray, max_shift: int = 15) -> SyncScores:
    """LSE-D, LSE-C and the offset from a sync expert's embeddings.

    Args:
        audio: float [T, D], the embedding of the sound around each frame.
        video: float [T, D], that of the mouth.
        max_shift: shifts from minus to plus so many frames are tried (fewer where T is small).

    Paper: Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016; Prajwal et al.,
        2020, arXiv:2008.10010, for the names. Each shift is averaged over the frames that it
        leaves; nothing is padded in.
    """
    num_frames = min(len(audio), len(video))
    max_shift = min(max_shift, num_frames - 1)
    shifts = np.arange(-max_shift, max_shift + 1)
    distances = np.array([_mean_distance(audio, video, int(shift)) for shift in shifts])
    best = int(distances.argmin())
    return SyncScores(
        float(distances[best]),
        float(np.median(distances) - distances[best]),
        int(shifts[best]),
        float(distances[max_shift]),
    )


def _mean_distance(audio: FloatArray, video: FloatArray, shift: int) -> float:
    """Between the mouth at frame t and the sound at t + shift, over the frames where both exist."""
    audio, video = audio[max(0, shift) :], video[max(0, -shift) :]
    common = min(len(audio), len(video))
    return float(np.linalg.norm(video[:common] - audio[:common], axis=1).mean())
