"""Causal convolutional network that predicts lip motion from a log-mel spectrogram.

Shape suffixes: B batch, C mel bins, M mel frames, T video frames, D hidden channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.features.faces.alignment import NUM_LIP_POINTS

_LEVEL_MELS = 160
_MELS_PER_FRAME = 4


class LipMotionNetwork(nn.Module):
    """Causal convolutions over mel frames, then over video frames, and a linear head.

    The layers before the head depend on 1.3 s of past speech, and on the mean of each mel bin over
    two seconds, which represents the level and the timbre of the voice.

    Args:
        num_mels: number of mel bins.
        mel_channels: channels of the layers at the rate of the mel frames.
        mel_dilations: their dilations.
        channels: channels of the layers at the rate of the video frames.
        dilations: their dilations.
        ahead_mels: number of mel frames after the middle of a video frame that its motion depends
            on.
        dropout: probability of dropout.

    Attributes:
        past_frames: number of video frames before a frame that its motion depends on.

    Paper: Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and recurrent
        networks for sequence modeling", 2018, arXiv:1803.01271.
    """

    def __init__(
        self,
        num_mels: int = 80,
        mel_channels: int = 160,
        mel_dilations: Sequence[int] = (1, 2, 4, 1),
        channels: int = 256,
        dilations: Sequence[int] = (1, 2, 4, 1, 2, 4),
        ahead_mels: int = 16,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.ahead_mels, self.channels = ahead_mels, channels
        self.past_frames = 2 * sum(dilations)
        self._past_mels = 2 * sum(mel_dilations)
        self.input = nn.Linear(2 * num_mels, mel_channels)
        self.mel_blocks = nn.ModuleList(_CausalBlock(mel_channels, d) for d in mel_dilations)
        self.middle = nn.Linear(_MELS_PER_FRAME * mel_channels, channels)
        self.blocks = nn.ModuleList(_CausalBlock(channels, d) for d in dilations)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(channels)
        self.lips = nn.Linear(channels, 2 * NUM_LIP_POINTS)

    def forward(self, mel_BCM: Tensor, places_T: Tensor) -> Tensor:
        """Return the lip motion [B, T - past_frames, 40] (see `lip_motion`) of video frames.

        Args:
            mel_BCM: log-mel spectrogram in [-4, 4]. Before its start, the first mel frame is
                repeated.
            places_T: positions of the middles of consecutive video frames, in mel frames.
        """
        return self.lips(self.hidden(mel_BCM, places_T))

    def hidden(self, mel_BCM: Tensor, places_T: Tensor) -> Tensor:
        """Return the input [B, T - past_frames, D] of the head; see `forward`."""
        x = torch.cat([mel_BCM, _without_level(mel_BCM)], 1).transpose(1, 2) / 2
        # Mel frames up to the newest one that each video frame depends on.
        last_T = places_T.round().long() + self.ahead_mels
        start = int(last_T[0]) - _MELS_PER_FRAME + 1 - self._past_mels
        index = torch.arange(start, int(last_T[-1]) + 1, device=x.device)
        x = self.input(x[:, index.clamp(0, x.shape[1] - 1)])
        for block in self.mel_blocks:
            x = block(x)
        newest = last_T[:, None] - torch.arange(_MELS_PER_FRAME, device=x.device)
        x = self.middle(x[:, newest - start - self._past_mels].flatten(2))
        for block in self.blocks:
            x = self.dropout(block(x))
        return self.norm(x)


class _CausalBlock(nn.Module):
    """Residual block: normalisation, causal convolution of width 3, activation, projection.

    The convolution is a linear layer of three frames, which is faster for short sequences.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(channels)
        self.convolution = nn.Linear(3 * channels, channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Change a sequence [B, length, channels]; the first 2 * dilation frames are dropped."""
        y, step = self.norm(x), self.dilation
        y = torch.cat([y[:, : -2 * step], y[:, step:-step], y[:, 2 * step :]], -1)
        return x[:, 2 * step :] + self.project(F.gelu(self.convolution(y)))


def _without_level(mel_BCM: Tensor) -> Tensor:
    """Subtract half the mean of each bin and half the mean of all bins over the past 2 s."""
    total = F.pad(mel_BCM.cumsum(-1), (1, 0))
    stop = torch.arange(1, mel_BCM.shape[-1] + 1, device=mel_BCM.device)
    start = (stop - _LEVEL_MELS).clamp(min=0)
    mean = (total[..., stop] - total[..., start]) / (stop - start)
    return mel_BCM - (mean + mean.mean(1, keepdim=True)) / 2
