"""Vocal-tract-length perturbation of log-mels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from talkinghead.types import AVSpec

# Slaney's mel scale, which the log-mel uses: linear up to 1 kHz, logarithmic above.
_LINEAR_HZ = 200.0 / 3.0
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _LINEAR_HZ
_LOG_STEP = math.log(6.4) / 27.0


def warp_vocal_tract(mel_BCL: Tensor, factor_B: Tensor, spec: AVSpec) -> Tensor:
    """Scale the frequency axis: energy at f moves to factor * f.

    Args:
        mel_BCL: log-mel, float [B, num_mels, L].
        factor_B: float [B]; above 1 for a shorter vocal tract, a higher voice.
        spec: frequencies of the mel bins.

    Returns:
        float [B, num_mels, L]. Bins beyond the original range repeat its last bin.

    Paper: Jaitly and Hinton, "Vocal Tract Length Perturbation (VTLP) improves speech recognition",
        2013.
    """
    num_mels = spec.num_mels
    ends = _hz_to_mel(torch.tensor([spec.fmin, spec.fmax], device=mel_BCL.device))
    step = (ends[1] - ends[0]) / (num_mels + 1)
    bins = torch.arange(num_mels, device=mel_BCL.device)
    centres_hz = _mel_to_hz(ends[0] + step * (bins + 1))
    source = (_hz_to_mel(centres_hz / factor_B[:, None]) - ends[0]) / step - 1
    source = source.clamp(0, num_mels - 1)
    # Linear interpolation as a matrix per sample, with a hat function around each source position.
    weights = (1.0 - (source[:, :, None] - bins).abs()).clamp_min(0.0)
    return torch.bmm(weights, mel_BCL)


def _hz_to_mel(hz: Tensor) -> Tensor:
    logarithmic = _KNEE_MEL + torch.log(hz.clamp_min(1.0) / _KNEE_HZ) / _LOG_STEP
    return torch.where(hz < _KNEE_HZ, hz / _LINEAR_HZ, logarithmic)


def _mel_to_hz(mel: Tensor) -> Tensor:
    logarithmic = _KNEE_HZ * torch.exp((mel - _KNEE_MEL) * _LOG_STEP)
    return torch.where(mel < _KNEE_MEL, mel * _LINEAR_HZ, logarithmic)
