"""Two recordings of the same words brought into step.

Shape suffixes: C feature rows, L and M mel frames of the one and of the other.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkinghead.features.audio import Mfcc
from talkinghead.types import AVSpec, FloatArray

# Frames that one step of the path takes of each recording, and what such a step costs: at its
# slowest one of them takes three times as long as the other.
_STEPS = ((1, 1, 1.0), (1, 2, 1.2), (2, 1, 1.2), (1, 3, 1.6), (3, 1, 1.6))
_NUM_SLOPES = 6
_SMOOTH = 5
"""Frames over which the path is averaged, so that nothing is heard to jump."""


def time_warp(mel_CL: Tensor, other_CM: Tensor, spec: AVSpec) -> FloatArray:
    """Where in another recording each frame's sound is: dynamic time warping of their cepstra.

    Args:
        mel_CL: log-mel of what is said, float [num_mels, L], from its first sound to its last.
        other_CM: of the same words by somebody else, likewise, float [num_mels, M].
        spec: of both.

    Returns:
        float32 [L], frames of the other, never falling.

    Paper: Sakoe and Chiba, "Dynamic programming algorithm optimization for spoken word
        recognition", 1978.
    """
    size, other_size = mel_CL.shape[-1], other_CM.shape[-1]
    # First as long as the other, so that the ends can be reached at any difference in pace.
    place = torch.linspace(0, other_size - 1, size)
    first, second = (_shape(m, spec) for m in (mel_CL, sample_frames(other_CM, np.asarray(place))))
    path = _cheapest_path(torch.cdist(first.T, second.T).numpy())
    frames = np.interp(np.arange(size), path[:, 0], path[:, 1])
    padded = np.pad(frames, _SMOOTH // 2, mode="edge")
    frames = np.convolve(padded, np.full(_SMOOTH, 1 / _SMOOTH), "valid")
    return np.asarray(frames * (other_size - 1) / max(1, size - 1), np.float32)


def sample_frames(features_CM: Tensor, frames: FloatArray) -> Tensor:
    """Features between frames, linearly: float [C, L]; beyond the ends the last ones."""
    place = torch.from_numpy(np.asarray(frames, np.float32)).clamp(0, features_CM.shape[-1] - 1)
    low = place.floor().long()
    high = (low + 1).clamp_max(features_CM.shape[-1] - 1)
    return torch.lerp(features_CM[:, low], features_CM[:, high], place - low)


def _shape(mel_CL: Tensor, spec: AVSpec) -> Tensor:
    """What is said, whoever says it: cepstra and their slopes, each in its own range [C, L]."""
    cepstra = Mfcc(spec)(mel_CL)
    padded = F.pad(cepstra[None], (2, 2), mode="replicate")[0]
    slopes = (2 * (padded[:, 4:] - padded[:, :-4]) + padded[:, 3:-1] - padded[:, 1:-3]) / 10
    rows = torch.cat([cepstra, slopes[1 : 1 + _NUM_SLOPES]])
    rows = (rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True).clamp_min(1e-3)
    rows[0] *= 0.5  # Loudness is not what is said.
    return rows


def _cheapest_path(cost: FloatArray) -> np.ndarray:
    """From corner to corner of [L, M]: int64 [K, 2]. Every step takes a frame or more of both."""
    height, width = cost.shape
    reach = max(step for *steps, _ in _STEPS for step in steps)
    total = np.full((height + reach, width + reach), np.inf)
    total[reach, reach] = cost[0, 0]
    taken = np.zeros((height, width), np.int64)
    for row in range(1, height):
        ways = np.stack(
            [
                total[reach + row - down, reach - across : reach - across + width]
                + price * cost[row]
                for down, across, price in _STEPS
            ]
        )
        taken[row] = ways.argmin(0)
        total[reach + row, reach:] = ways.min(0)
    path = [(height - 1, width - 1)]
    while path[-1][0] > 0:
        down, across, _ = _STEPS[taken[path[-1]]]
        path.append((path[-1][0] - down, path[-1][1] - across))
    return np.array(path[::-1])
