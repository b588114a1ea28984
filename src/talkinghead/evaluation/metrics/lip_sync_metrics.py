"""Lip-sync scores from the embeddings of a sync expert, and lip-sync metrics for torchmetrics.

The `update` method of a metric takes the tensors of one clip. Their meaning and order are those of
the arguments of the function named in the class docstring. `compute` returns the mean over clips;
clips whose value is NaN are skipped.

Shape suffixes: T video frames, D embedding width, P landmarks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from talkinghead.evaluation.metrics.mouth_metrics import (
    correlation_in_step,
    landmark_distance,
    lip_shape_correlation,
    lip_shape_error,
    lip_shape_motion,
    opening_correlation,
    relative_opening,
    width_series,
)
from talkinghead.sync.offset import distances_by_shift, measure_offset
from talkinghead.types import FloatArray


@dataclass(frozen=True)
class SyncScores:
    """Agreement of audio and lips in the embedding space of a sync expert.

    Attributes:
        lse_d: the smallest mean distance over all shifts; lower is better.
        lse_c: the median of the mean distance over all shifts, minus `lse_d`; higher is better.
        offset: the shift with the smallest mean distance, in frames; positive if the audio is late.
        distance_at_zero: the mean distance without a shift.
    """

    lse_d: float
    lse_c: float
    offset: int
    distance_at_zero: float


def sync_scores(audio: FloatArray, video: FloatArray, max_shift: int = 15) -> SyncScores:
    """Return LSE-D, LSE-C and the offset of a clip.

    For each shift, distances are averaged over the frames that overlap; nothing is padded. The
    embeddings of the audio around each frame and of the mouth are float [T, D]. `max_shift` is the
    largest shift in frames in both directions, at most T - 1.

    Paper: Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016; Prajwal et al.,
        2020, arXiv:2008.10010, for the names.
    """
    num_frames = min(len(audio), len(video))
    max_shift = min(max_shift, num_frames - 1)
    distances = distances_by_shift(audio[:num_frames], video[:num_frames], max_shift)
    mean, best = np.nanmean(distances, axis=0), measure_offset(distances)
    return SyncScores(float(mean.min()), best.confidence, int(best.frames), float(mean[max_shift]))


class ClipMean(Metric):
    """Base class for the mean over clips of a function of arrays.

    `options` are further arguments of the function.
    """

    full_state_update = False
    total: Tensor
    num_clips: Tensor

    def __init__(self, function: Callable[..., float], **options: Any) -> None:
        super().__init__()
        self.function, self.options = function, options
        for name in ("total", "num_clips"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, *clip: Tensor) -> None:
        """Add a clip."""
        value = self.function(*(part.cpu().numpy() for part in clip), **self.options)
        row = torch.tensor(value, dtype=torch.float64, device=self.total.device)
        self.total += row.nan_to_num()
        self.num_clips += row.isfinite()

    def compute(self) -> Tensor:
        """Return the mean over clips; NaN without clips."""
        return self.total / self.num_clips


class MouthOpeningCorrelation(ClipMean):
    """Pearson's r of the generated and the real mouth opening [T]; see `opening_correlation`.

    Example:
        >>> metric = MouthOpeningCorrelation()
        >>> real = torch.tensor([0.0, 0.1, 0.3, 0.2])
        >>> metric.update(2 * real, real)
        >>> round(float(metric.compute()), 3)
        1.0
    """

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__(opening_correlation)


class InStepMouthOpeningCorrelation(ClipMean):
    """Largest r of the generated and the real mouth opening [T]; see `correlation_in_step`.

    Example:
        >>> metric = InStepMouthOpeningCorrelation()
        >>> real = torch.sin(torch.arange(50.0))
        >>> metric.update(real.roll(2)[2:], real[2:])
        >>> round(float(metric.compute()), 3)
        1.0
    """

    higher_is_better = True

    def __init__(self, max_shift: int = 5) -> None:
        super().__init__(_in_step_r, max_shift=max_shift)


class MouthWidthCorrelation(ClipMean):
    """Pearson's r of the mouth width of generated and real landmarks [T, P, 2]; see `width_series`.

    Example:
        >>> metric = MouthWidthCorrelation("ibug68")
        >>> points = torch.rand(9, 68, 2)
        >>> metric.update(points, points)
        >>> round(float(metric.compute()), 3)
        1.0
    """

    higher_is_better = True

    def __init__(self, topology: str = "mesh468") -> None:
        super().__init__(_width_r, topology=topology)


class LipShapeError(ClipMean):
    """Error of the lip motion of generated and real landmarks [T, P, 2]; see `lip_shape_error`.

    Example:
        >>> metric = LipShapeError("ibug68")
        >>> points = torch.rand(9, 68, 2)
        >>> metric.update(points, points)
        >>> float(metric.compute())
        0.0
    """

    higher_is_better = False

    def __init__(self, topology: str = "mesh468") -> None:
        super().__init__(_lip_shape_score, score=lip_shape_error, topology=topology)


class LipShapeCorrelation(ClipMean):
    """Correlation of the lip motion of landmarks [T, P, 2]; see `lip_shape_correlation`.

    Example:
        >>> metric = LipShapeCorrelation("ibug68")
        >>> points = torch.rand(9, 68, 2)
        >>> metric.update(points, points)
        >>> round(float(metric.compute()), 3)
        1.0
    """

    higher_is_better = True

    def __init__(self, topology: str = "mesh468") -> None:
        super().__init__(_lip_shape_score, score=lip_shape_correlation, topology=topology)


class RelativeMouthOpening(ClipMean):
    """Median generated opening [T] relative to the real range [T]; see `relative_opening`.

    For openings generated from silence, 0 is a closed mouth.

    Example:
        >>> metric = RelativeMouthOpening()
        >>> metric.update(torch.full((5,), 0.5), torch.linspace(0, 1, 101))
        >>> round(float(metric.compute()), 3)
        0.5
    """

    def __init__(self) -> None:
        super().__init__(relative_opening)


class LipLandmarkDistance(ClipMean):
    """LMD of generated and real landmarks [T, P, 2]; see `landmark_distance`.

    Example:
        >>> metric = LipLandmarkDistance("ibug68")
        >>> target = torch.arange(68.0).view(1, 68, 1).expand(3, 68, 2)
        >>> metric.update(target, target)
        >>> float(metric.compute())
        0.0
    """

    higher_is_better = False

    def __init__(self, topology: str = "mesh468") -> None:
        super().__init__(landmark_distance, topology=topology)


class LipSyncDistance(ClipMean):
    """LSE-D of audio and video embeddings [T, D]; see `sync_scores`.

    Example:
        >>> metric = LipSyncDistance()
        >>> metric.update(torch.eye(40), torch.eye(40))
        >>> float(metric.compute())
        0.0
    """

    higher_is_better = False

    def __init__(self, max_shift: int = 15) -> None:
        super().__init__(_sync_score, name="lse_d", max_shift=max_shift)


class LipSyncConfidence(ClipMean):
    """LSE-C of audio and video embeddings [T, D]; see `sync_scores`.

    Example:
        >>> metric = LipSyncConfidence()
        >>> metric.update(torch.eye(40), torch.eye(40))
        >>> round(float(metric.compute()), 2)
        1.41
    """

    higher_is_better = True

    def __init__(self, max_shift: int = 15) -> None:
        super().__init__(_sync_score, name="lse_c", max_shift=max_shift)


def _sync_score(audio: FloatArray, video: FloatArray, max_shift: int, name: str) -> float:
    return float(getattr(sync_scores(audio, video, max_shift), name))


def _in_step_r(generated: FloatArray, real: FloatArray, max_shift: int) -> float:
    return correlation_in_step(generated, real, max_shift).r


def _width_r(generated: FloatArray, real: FloatArray, topology: str) -> float:
    return opening_correlation(width_series(generated, topology), width_series(real, topology))


def _lip_shape_score(
    generated: FloatArray,
    real: FloatArray,
    score: Callable[[FloatArray, FloatArray], float],
    topology: str,
) -> float:
    return score(lip_shape_motion(generated, topology), lip_shape_motion(real, topology))
