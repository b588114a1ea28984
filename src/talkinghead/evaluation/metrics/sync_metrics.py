"""LSE-D, LSE-C and the offset, from the embeddings of any sync expert.

Shape suffixes: T video frames, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkinghead.sync.offset import distances_by_shift, measure_offset
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
    distances = distances_by_shift(audio[:num_frames], video[:num_frames], max_shift)
    mean, best = np.nanmean(distances, axis=0), measure_offset(distances)
    lse_d, at_zero = float(mean.min()), float(mean[max_shift])
    return SyncScores(lse_d, best.confidence, best.frames, at_zero)
