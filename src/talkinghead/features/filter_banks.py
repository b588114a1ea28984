"""Matrices of mel filters and of the discrete cosine transform.

The values equal those of torchaudio, which is not used because its wheels fit only the build of
torch, with or without CUDA, that they were made for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Slaney's mel scale is linear up to 1 kHz, which is 15 mel, and then logarithmic, with a factor of
# 6.4 for 27 mel.
_HZ_PER_MEL = 200.0 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def mel_filters(
    num_frequencies: int, fmin: float, fmax: float, num_mels: int, sample_rate: int
) -> Tensor:
    """Return triangular filters of unit area on Slaney's mel scale, [num_frequencies, num_mels].

    The frequencies are evenly spaced from 0 to half the sample rate.

    Paper: Slaney, "Auditory Toolbox", version 2, 1998.
    """
    frequencies = torch.linspace(0, sample_rate // 2, num_frequencies)
    corners = _to_hz(torch.linspace(_to_mel(fmin), _to_mel(fmax), num_mels + 2))
    distances = corners[None, :] - frequencies[:, None]
    widths = corners.diff()
    rising = -distances[:, :-2] / widths[:-1]
    falling = distances[:, 2:] / widths[1:]
    triangles = torch.minimum(rising, falling).clamp_min(0)
    return triangles * (2.0 / (corners[2:] - corners[:-2]))


def cosine_transform(num_coefficients: int, num_inputs: int) -> Tensor:
    """Return the first columns of the orthonormal DCT-II, [num_inputs, num_coefficients]."""
    positions = torch.arange(float(num_inputs)) + 0.5
    orders = torch.arange(float(num_coefficients))[:, None]
    matrix = torch.cos(math.pi / num_inputs * positions * orders) * math.sqrt(2.0 / num_inputs)
    matrix[0] /= math.sqrt(2.0)
    return matrix.T


def _to_mel(hertz: float) -> float:
    if hertz < _BREAK_HZ:
        return hertz / _HZ_PER_MEL
    return _BREAK_MEL + math.log(hertz / _BREAK_HZ) / _LOG_STEP


def _to_hz(mel: Tensor) -> Tensor:
    linear = mel * _HZ_PER_MEL
    return torch.where(
        mel < _BREAK_MEL, linear, _BREAK_HZ * torch.exp(_LOG_STEP * (mel - _BREAK_MEL))
    )
