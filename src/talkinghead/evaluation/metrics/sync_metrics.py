"""LSE-D, LSE-C and the audio-video offset, from the embeddings of a sync expert.

Shape suffixes: T video frames, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkinghead.sync.offset import distances_by_shift, measure_offset
from talkinghead.types import FloatArray


@dataclass(frozen=True)
class SyncScores:
    """Agreement of audio and lips in the embedding space of a sync expert.

    Attributes:
        lse_d: the smallest mean distance over all shifts; lower is better.
        lse_c: the median over shifts minus the smallest; higher is better.
        offset: the shift with the smallest distance, in frames; positive if the audio is late.
        distance_at_zero: the mean distance without a shift.
    """

    lse_d: float
    lse_c: float
    offset: int
    distance_at_zero: float


def sync_scores(audio: FloatArray, video: FloatArray, max_shift: int = 15) -> SyncScores:
    """Return LSE-D, LSE-C and the offset of a clip.

    Each shift is averaged over the frames that overlap; nothing is padded.

    Args:
        audio: float [T, D], embeddings of the audio around each frame.
        video: float [T, D], embeddings of the mouth.
        max_shift: largest shift in frames, in both directions (at most T - 1).

    Paper: Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016; Prajwal et al.,
        2020, arXiv:2008.10010, for the names.
    """
    num_frames = min(len(audio), len(video))
    max_shift = min(max_shift, num_frames - 1)
    distances = distances_by_shift(audio[:num_frames], video[:num_frames], max_shift)
    mean, best = np.nanmean(distances, axis=0), measure_offset(distances)
    return SyncScores(float(mean.min()), best.confidence, best.frames, float(mean[max_shift]))
