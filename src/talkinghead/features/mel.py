"""Log-mel spectrogram in a fixed range, and mel-frequency cepstral coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkinghead.features.feature_registry import AudioFeature, register
from talkinghead.features.filter_banks import cosine_transform, mel_filters
from talkinghead.types import AVSpec

MEL_SILENCE = -4.0
"""Value of every mel bin in digital silence; the lowest possible value."""

MEL_PER_DB = 8.0 / 100.0
"""Change of a log-mel value per decibel."""

_MIN_DB = -100.0
_REFERENCE_DB = 20.0
_NUM_MFCC = 13


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
