"""Mel-frequency cepstral coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import torchaudio.functional as taf
from torch import Tensor

from talkinghead.features.feature_registry import AudioFeature, register
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.types import AVSpec

_NUM_MFCC = 13


@register
class Mfcc(AudioFeature):
    """The first 13 coefficients of the log-mel's orthonormal cosine transform, [13, M]."""

    name = "mfcc"
    source = "log_mel"
    dct: Tensor

    def __init__(self, spec: AVSpec) -> None:
        super().__init__(spec)
        dct = taf.create_dct(_NUM_MFCC, spec.num_mels, norm="ortho")
        self.register_buffer("dct", dct, persistent=False)

    @classmethod
    def silence(cls, spec: AVSpec) -> Sequence[float]:
        """Return the transform of a silent log-mel."""
        return [MEL_SILENCE * spec.num_mels**0.5] + [0.0] * (_NUM_MFCC - 1)

    def forward(self, source: Tensor) -> Tensor:
        """Return the coefficients [..., 13, M] of a log-mel [..., num_mels, M]."""
        return (source.transpose(-1, -2) @ self.dct).transpose(-1, -2)
