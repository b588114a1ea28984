"""The scores: pure functions of pictures, landmarks, mels and embeddings. See docs/metrics.md."""

from talkinghead.evaluation.metrics.image_metrics import jitter, l1, l1_ratio, psnr, sharpness, ssim
from talkinghead.evaluation.metrics.mouth_metrics import (
    MOUTH_POINTS,
    agreement,
    landmark_distance,
    openness,
    pauses,
    speech_frames,
)
from talkinghead.evaluation.metrics.statistics import (
    Interval,
    bootstrap_interval,
    paired_difference,
)
from talkinghead.evaluation.metrics.sync_metrics import SyncScores, sync_scores
from talkinghead.features.faces.mouth_motion import (
    BoolArray,
    opening_series,
    pearson,
    track_landmarks,
)

__all__ = [
    "MOUTH_POINTS",
    "BoolArray",
    "Interval",
    "SyncScores",
    "agreement",
    "bootstrap_interval",
    "jitter",
    "l1",
    "l1_ratio",
    "landmark_distance",
    "opening_series",
    "openness",
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
