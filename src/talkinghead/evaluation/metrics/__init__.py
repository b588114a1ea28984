"""The scores: pure functions of pictures, landmarks, mels and embeddings. See docs/metrics.md."""

from talkinghead.evaluation.metrics.motion import (
    MOUTH_POINTS,
    BoolArray,
    agreement,
    landmark_distance,
    opening_series,
    pauses,
    pearson,
    speech_frames,
    track_landmarks,
)
from talkinghead.evaluation.metrics.pixels import jitter, l1, psnr, sharpness, ssim
from talkinghead.evaluation.metrics.statistics import (
    Interval,
    bootstrap_interval,
    paired_difference,
)
from talkinghead.evaluation.metrics.sync import SyncScores, sync_scores

__all__ = [
    "MOUTH_POINTS",
    "BoolArray",
    "Interval",
    "SyncScores",
    "agreement",
    "bootstrap_interval",
    "jitter",
    "l1",
    "landmark_distance",
    "opening_series",
    "paired_difference",
    "pauses",
    "pearson",
    "psnr",
    "sharpness",
    "speech_frames",
    "ssim",
    "sync_scores",
    "track_landmarks",
]
