"""Pitch, energy and voicing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkinghead.features.feature_registry import AudioFeature, register
from talkinghead.features.mel import MEL_PER_DB, MEL_SILENCE, scale_decibels
from talkinghead.types import AVSpec

_PITCH_RANGE_HZ = (60.0, 400.0)
_OCTAVE_COST = 0.05
_ENERGY_FLOOR = 1e-10


@register
class Prosody(AudioFeature):
    """Pitch, energy and voicing, [3, M].

    Rows: log2 of F0 relative to 150 Hz (0 where unvoiced); energy in dB, scaled like the log-mel;
    voicing in [0, 1], the height of the normalised autocorrelation's peak.

    Paper: Boersma, "Accurate short-term analysis of the fundamental frequency", 1993, for dividing
        the autocorrelation by the window's own.
    """

    name = "prosody"
    lag_cost: Tensor
    window: Tensor
    window_correlation: Tensor

    def __init__(self, spec: AVSpec) -> None:
        super().__init__(spec)
        self.min_lag = int(spec.sample_rate / _PITCH_RANGE_HZ[1])
        self.max_lag = int(spec.sample_rate / _PITCH_RANGE_HZ[0])
        lags = torch.arange(self.min_lag, self.max_lag + 1)
        cost = _OCTAVE_COST * torch.log2(lags / self.min_lag)
        self.register_buffer("lag_cost", cost, persistent=False)
        window = torch.hann_window(spec.n_fft)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("window_correlation", _autocorrelation(window), persistent=False)

    @classmethod
    def silence(cls, spec: AVSpec) -> Sequence[float]:
        """Return the values for silence: pitch 0, the lowest energy and voicing 0."""
        return [0.0, MEL_SILENCE, 0.0]

    @classmethod
    def change_gain(cls, rows_BCM: Tensor, gain_db_B: Tensor) -> Tensor:
        """Return the rows with changed energy; pitch and voicing do not depend on loudness."""
        pitch, energy, voicing = rows_BCM.unbind(1)
        louder = energy + gain_db_B[:, None] * MEL_PER_DB
        # Digital silence stays silence at any gain.
        energy = torch.where(energy > MEL_SILENCE, louder, energy)
        return torch.stack([pitch, energy.clamp(MEL_SILENCE, -MEL_SILENCE), voicing], 1)

    def forward(self, source: Tensor) -> Tensor:
        """Return the rows [..., 3, M] of frames [..., M, n_fft] without pre-emphasis."""
        correlation = _autocorrelation(source * self.window)
        power = correlation[..., 0]
        normalised = correlation / power.clamp_min(_ENERGY_FLOOR).unsqueeze(-1)
        window = self.window_correlation / self.window_correlation[0]
        normalised = normalised / window.clamp_min(0.05)
        candidates = normalised[..., self.min_lag : self.max_lag + 1]
        # The correlation is equally high at multiples of the period; the cost favours the shortest.
        lag = (candidates - self.lag_cost).argmax(dim=-1)
        strength = candidates.gather(-1, lag.unsqueeze(-1)).squeeze(-1)
        voicing = strength.clamp(0.0, 1.0) * (power > 1e-4)
        pitch = torch.log2(self.spec.sample_rate / (lag + self.min_lag).float() / 150.0)
        decibel = 10.0 * torch.log10(power.clamp_min(_ENERGY_FLOOR) / self.spec.n_fft)
        energy = scale_decibels(decibel)
        return torch.stack([torch.where(voicing > 0.5, pitch, 0.0), energy, voicing], dim=-2)


def _autocorrelation(frames: Tensor) -> Tensor:
    """Return the linear autocorrelation over the last axis, by the Wiener-Khinchin theorem."""
    size = frames.shape[-1]
    spectrum = torch.fft.rfft(frames, n=2 * size)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * size)[..., :size]
