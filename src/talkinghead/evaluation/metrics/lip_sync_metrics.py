"""Lip-sync scores as `torchmetrics.Metric`s, for training loops and other projects.

Each metric averages one value per clip; clips whose value is NaN are not counted.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from talkinghead.evaluation.metrics.mouth_metrics import (
    landmark_distance,
    opening_correlation,
    relative_opening,
)
from talkinghead.evaluation.metrics.sync_metrics import sync_scores


class ClipMean(Metric):
    """Base class: the mean of one or several named values per clip."""

    full_state_update = False
    total: Tensor
    num_clips: Tensor

    def __init__(self, num_values: int = 1) -> None:
        super().__init__()
        zeros = torch.zeros(num_values, dtype=torch.float64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("num_clips", zeros.clone(), dist_reduce_fx="sum")

    def add_clip(self, *values: float) -> None:
        """Add the values of one clip."""
        row = torch.tensor(values, dtype=torch.float64, device=self.total.device)
        self.total += row.nan_to_num()
        self.num_clips += row.isfinite()

    def compute(self) -> Tensor | dict[str, Tensor]:
        """Return the mean over clips; NaN without clips."""
        return (self.total / self.num_clips)[0]


class MouthOpeningCorrelation(ClipMean):
    """Pearson's r of the generated and the real mouth opening; see `opening_correlation`.

    `update` takes float [T] openings, NaN where unknown, and optionally a bool [T] mask.

    Example:
        >>> metric = MouthOpeningCorrelation()
        >>> real = torch.tensor([0.0, 0.1, 0.3, 0.2])
        >>> metric.update(2 * real, real)
        >>> round(float(metric.compute()), 3)
        1.0
    """

    higher_is_better = True

    def update(self, generated: Tensor, real: Tensor, mask: Tensor | None = None) -> None:
        """Add a clip."""
        kept = None if mask is None else mask.cpu().numpy()
        self.add_clip(opening_correlation(generated.cpu().numpy(), real.cpu().numpy(), kept))


class RelativeMouthOpening(ClipMean):
    """Median generated opening relative to the real range; see `relative_opening`.

    With the openings generated from silence it measures closure: 0 is a closed mouth.

    Example:
        >>> metric = RelativeMouthOpening()
        >>> metric.update(torch.full((5,), 0.5), torch.linspace(0, 1, 101))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    def update(self, generated: Tensor, real: Tensor) -> None:
        """Add a clip, by its openings float [T]."""
        self.add_clip(relative_opening(generated.cpu().numpy(), real.cpu().numpy()))


class LipLandmarkDistance(ClipMean):
    """LMD in outer-eye distances; see `landmark_distance`.

    Args:
        topology: "mesh468" or "ibug68".

    Example:
        >>> metric = LipLandmarkDistance("ibug68")
        >>> target = torch.arange(68.0).view(1, 68, 1).expand(3, 68, 2)
        >>> metric.update(target, target)
        >>> metric.compute()
        tensor(0., dtype=torch.float64)
    """

    higher_is_better = False

    def __init__(self, topology: str = "mesh468") -> None:
        super().__init__()
        self.topology = topology

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add a clip, by its landmarks float [T, P, 2] in common coordinates."""
        arrays = predicted.cpu().numpy(), target.cpu().numpy()
        self.add_clip(landmark_distance(*arrays, self.topology))


class LipSyncError(ClipMean):
    """LSE-D, LSE-C and the distance without a shift; see `sync_scores`.

    Args:
        max_shift: largest shift in frames that is tried.

    Example:
        >>> metric = LipSyncError()
        >>> embeddings = torch.eye(40)
        >>> metric.update(embeddings, embeddings)
        >>> {name: round(float(value), 2) for name, value in metric.compute().items()}
        {'lse_d': 0.0, 'lse_c': 1.41, 'lse_d_at_zero': 0.0}
    """

    def __init__(self, max_shift: int = 15) -> None:
        super().__init__(num_values=3)
        self.max_shift = max_shift

    def update(self, audio: Tensor, video: Tensor) -> None:
        """Add a clip, by its embeddings float [T, D] of audio and of video."""
        scores = sync_scores(audio.cpu().numpy(), video.cpu().numpy(), self.max_shift)
        self.add_clip(scores.lse_d, scores.lse_c, scores.distance_at_zero)

    def compute(self) -> dict[str, Tensor]:
        """Return the means over clips by name."""
        names = ("lse_d", "lse_c", "lse_d_at_zero")
        return dict(zip(names, self.total / self.num_clips, strict=True))
