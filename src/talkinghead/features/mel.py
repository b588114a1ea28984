"""Log-mel spectrogram in a fixed range, and mel-frequency cepstral coefficients.

The filters equal those of torchaudio, which is not used because its wheels fit only the build of
torch, with or without CUDA, that they were made for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from talkinghead.features.feature_registry import AudioFeature, register
from talkinghead.types import AVSpec

MEL_SILENCE = -4.0
"""Value of every mel bin in digital silence; the lowest possible value."""

MEL_PER_DB = 8.0 / 100.0
"""Change of a log-mel value per decibel."""

_MIN_DB = -100.0
_REFERENCE_DB = 20.0
_NUM_MFCC = 13
# Slaney's mel scale is linear up to 1 kHz, which is 15 mel, and then logarithmic, with a factor of
# 6.4 for 27 mel.
_HZ_PER_MEL = 200.0 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def scale_decibels(decibel: Tensor) -> Tensor:
    """Map [-100, 0] dB to [-4, 4]; values outside are clamped."""
    mel = (decibel - _MIN_DB) * (2 * -MEL_SILENCE / -_MIN_DB) + MEL_SILENCE
    return mel.clamp(MEL_SILENCE, -MEL_SILENCE)


@register
class LogMel(AudioFeature):
    """Log-mel spectrogram [num_mels, M] in [-4, 4].

    Magnitudes are in dB relative to 20 dB, limited to at least -100 dB and scaled so that -100 dB
    is -4 and 0 dB is 4.

    Paper: Shen et al., "Natural TTS Synthesis by Conditioning WaveNet on Mel Spectrogram
        Predictions", 2018, arXiv:1712.05884, for the scaling; Prajwal et al., 2020,
        arXiv:2008.10010, for the constants.
    """

    name = "mel"
    source = "emphasised_samples"
    filters: Tensor
    window: Tensor

    def __init__(self, spec: AVSpec) -> None:
        super().__init__(spec)
        filters = mel_filters(
            spec.n_fft // 2 + 1, spec.fmin, spec.fmax, spec.num_mels, spec.sample_rate
        )
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(spec.n_fft), persistent=False)

    @classmethod
    def silence(cls, spec: AVSpec) -> Sequence[float]:
        """Return the lowest log-mel value for every mel bin."""
        return [MEL_SILENCE] * spec.num_mels

    def forward(self, source: Tensor) -> Tensor:
        """Return the log-mel [..., num_mels, M] of pre-emphasised frames [..., M, n_fft]."""
        magnitude = torch.fft.rfft(source * self.window).abs()
        decibel = 20.0 * torch.log10((magnitude @ self.filters).clamp_min(1e-5)) - _REFERENCE_DB
        return scale_decibels(decibel).transpose(-1, -2)


@register
class Mfcc(AudioFeature):
    """First 13 mel-frequency cepstral coefficients [13, M], from an orthonormal DCT."""

    name = "mfcc"
    source = "log_mel"
    dct: Tensor

    def __init__(self, spec: AVSpec) -> None:
        super().__init__(spec)
        dct = cosine_transform(_NUM_MFCC, spec.num_mels)
        self.register_buffer("dct", dct, persistent=False)

    @classmethod
    def silence(cls, spec: AVSpec) -> Sequence[float]:
        """Return the cosine transform of the log-mel of silence."""
        return [MEL_SILENCE * spec.num_mels**0.5] + [0.0] * (_NUM_MFCC - 1)

    def forward(self, source: Tensor) -> Tensor:
        """Return the coefficients [..., 13, M] of a log-mel [..., num_mels, M]."""
        return (source.transpose(-1, -2) @ self.dct).transpose(-1, -2)


def mel_filters(
    num_frequencies: int, fmin: float, fmax: float, num_mels: int, sample_rate: int
) -> Tensor:
    """Return triangular filters of unit area on Slaney's mel scale, [num_frequencies, num_mels].

    The frequencies are evenly spaced from 0 to half the sample rate.

    Paper: Slaney, "Auditory Toolbox", version 2, 1998.
    """
    frequencies = torch.linspace(0, sample_rate // 2, num_frequencies)
    low, high = hz_to_mel(torch.tensor([fmin, fmax], dtype=torch.float64)).tolist()
    corners = mel_to_hz(torch.linspace(low, high, num_mels + 2))
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


def hz_to_mel(hz: Tensor) -> Tensor:
    """Return frequencies in hertz on Slaney's mel scale."""
    logarithmic = _BREAK_MEL + torch.log(hz.clamp_min(1.0) / _BREAK_HZ) / _LOG_STEP
    return torch.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, logarithmic)


def mel_to_hz(mel: Tensor) -> Tensor:
    """Return frequencies on Slaney's mel scale in hertz."""
    exponential = _BREAK_HZ * torch.exp((mel - _BREAK_MEL) * _LOG_STEP)
    return torch.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, exponential)
