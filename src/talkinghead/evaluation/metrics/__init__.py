"""Evaluation metrics: functions of images, landmarks, mels and embeddings (see docs/metrics.md).

`lip_sync_metrics` contains the lip-sync scores as `torchmetrics.Metric`s.
"""

from talkinghead.evaluation.metrics.image_metrics import jitter, l1, l1_ratio, psnr, sharpness, ssim
from talkinghead.evaluation.metrics.lip_sync_metrics import (
    InStepMouthOpeningCorrelation,
    LipLandmarkDistance,
    LipShapeCorrelation,
    LipShapeError,
    LipSyncConfidence,
    LipSyncDistance,
    MouthOpeningCorrelation,
    MouthWidthCorrelation,
    RelativeMouthOpening,
    SyncScores,
    sync_scores,
)
from talkinghead.evaluation.metrics.mouth_metrics import (
    InStepCorrelation,
    closure_rate,
    correlation_in_step,
    in_step,
    landmark_distance,
    lip_shape_correlation,
    lip_shape_error,
    lip_shape_motion,
    opening_correlation,
    pause_frames,
    relative_opening,
    rounding_rate,
    speech_frames,
    width_series,
)
from talkinghead.evaluation.metrics.statistics import Interval, bootstrap_interval
from talkinghead.features.faces.mouth_motion import (
    BoolArray,
    opening_series,
    pearson,
    track_landmarks,
)

__all__ = [
    "BoolArray",
    "InStepCorrelation",
    "InStepMouthOpeningCorrelation",
    "Interval",
    "LipLandmarkDistance",
    "LipShapeCorrelation",
    "LipShapeError",
    "LipSyncConfidence",
    "LipSyncDistance",
    "MouthOpeningCorrelation",
    "MouthWidthCorrelation",
    "RelativeMouthOpening",
    "SyncScores",
    "bootstrap_interval",
    "closure_rate",
    "correlation_in_step",
    "in_step",
    "jitter",
    "l1",
    "l1_ratio",
    "landmark_distance",
    "lip_shape_correlation",
    "lip_shape_error",
    "lip_shape_motion",
    "opening_correlation",
    "opening_series",
    "pause_frames",
    "pearson",
    "psnr",
    "relative_opening",
    "rounding_rate",
    "sharpness",
    "speech_frames",
    "ssim",
    "sync_scores",
    "track_landmarks",
    "width_series",
]
