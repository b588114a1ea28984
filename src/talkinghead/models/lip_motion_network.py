"""Causal convolutional network that predicts lip motion from a log-mel spectrogram.

Shape suffixes: B batch, C mel bins, M mel frames, T video frames, D hidden channels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fractions import Fraction
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.features.faces.alignment import NUM_LIP_POINTS

_LEVEL_MELS = 160
# Number of mel frames that are the input of a video frame.
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


class StreamingLipMotion:
    """Streaming version of `LipMotionNetwork.hidden`; the chunks of a stream change nothing.

    The inputs of the layers are kept, so that each mel frame is processed once.

    Args:
        network: the network.
        mels_per_frame: number of mel frames per video frame; mel frame m is in the middle of video
            frame m / mels_per_frame - 1 / 2.
        silence_C: mel frame of silence, which precedes the stream.
    """

    def __init__(
        self, network: LipMotionNetwork, mels_per_frame: Fraction, silence_C: Tensor
    ) -> None:
        self._network, self._mels_per_frame = network, mels_per_frame
        # The level is that of the stream alone, not of the silence before it.
        self._mel_CM = silence_C.new_zeros(len(silence_C), _LEVEL_MELS - 1)
        self._num_mels = 0
        # In silence, the inputs of each layer are equal in all frames.
        x_BMD = _network_input(network, silence_C[:, None], silence_C[:, None])
        self._pasts, x_BMD = _silent_pasts(network.mel_blocks, x_BMD)
        self._encoded_MD = x_BMD[0].repeat(_MELS_PER_FRAME, 1)
        x_BTD = network.middle(self._encoded_MD.flatten())[None, None]
        pasts, _ = _silent_pasts(network.blocks, x_BTD)
        self._pasts |= pasts
        # Index of the first mel frame of `_encoded_MD`, and of the next video frame.
        self._first_mel, self._next_frame = -_MELS_PER_FRAME, 0

    def copy(self) -> Self:
        """Return a stream with the same past."""
        other = copy.copy(self)
        other._pasts = dict(self._pasts)
        return other

    def last_mel(self, frame: int) -> int:
        """Return the index of the last mel frame that a video frame depends on."""
        middle = (frame + Fraction(1, 2)) * self._mels_per_frame
        return round(middle) + self._network.ahead_mels

    def push(self, mel_CM: Tensor) -> Tensor:
        """Append mel frames, and return the hidden layer [T, D] of new video frames, T >= 0."""
        network, num_new = self._network, mel_CM.shape[1]
        if num_new == 0:
            return mel_CM.new_empty(0, network.channels)
        self._mel_CM = torch.cat([self._mel_CM[:, -(_LEVEL_MELS - 1) :], mel_CM], 1)
        counts_M = torch.arange(self._num_mels + 1, self._num_mels + num_new + 1)
        self._num_mels += num_new
        means_CM = F.avg_pool1d(self._mel_CM, _LEVEL_MELS, 1)
        means_CM = means_CM * (_LEVEL_MELS / counts_M.clamp(max=_LEVEL_MELS))
        x_BMD = _network_input(network, mel_CM, means_CM)
        self._encoded_MD = torch.cat([self._encoded_MD, self._run(network.mel_blocks, x_BMD)[0]])
        return self._encode_frames()

    def _encode_frames(self) -> Tensor:
        network, num_mels = self._network, self._first_mel + len(self._encoded_MD)
        last_T: list[int] = []
        while (last := self.last_mel(self._next_frame)) < num_mels:
            last_T.append(last)
            self._next_frame += 1
        if not last_T:
            return self._encoded_MD.new_empty(0, network.channels)
        newest = torch.tensor(last_T)[:, None] - torch.arange(_MELS_PER_FRAME) - self._first_mel
        x_BTD = network.middle(self._encoded_MD[newest].flatten(1))[None]
        x_BTD = network.norm(self._run(network.blocks, x_BTD))
        num_old = last - _MELS_PER_FRAME + 1 - self._first_mel
        self._encoded_MD, self._first_mel = self._encoded_MD[num_old:], self._first_mel + num_old
        return x_BTD[0]

    def _run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        for block in blocks:
            assert isinstance(block, _CausalBlock)
            x = torch.cat([self._pasts[block], x], 1)
            self._pasts[block] = x[:, -block.num_past :]
            x = block(x)
        return x


def _network_input(network: LipMotionNetwork, mel_CM: Tensor, means_CM: Tensor) -> Tensor:
    """Return the input [1, M, D] of the first block; see `_subtract_level`."""
    x_CM = torch.cat([mel_CM, _subtract_level(mel_CM, means_CM)])
    return network.input(x_CM.T[None] / 2)


def _silent_pasts(blocks: nn.ModuleList, x: Tensor) -> tuple[dict[nn.Module, Tensor], Tensor]:
    """Return the past inputs of blocks for a constant input [1, 1, D], and the last output."""
    pasts: dict[nn.Module, Tensor] = {}
    for block in blocks:
        assert isinstance(block, _CausalBlock)
        pasts[block] = x.expand(-1, block.num_past, -1)
        x = block(x.expand(-1, block.num_past + 1, -1))
    return pasts, x


class _CausalBlock(nn.Module):
    """Residual block: normalisation, causal convolution of width 3, activation, projection.

    The convolution is a linear layer of three frames, which is faster for short sequences.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.num_past = 2 * dilation  # Number of frames before a frame that it depends on.
        self.norm = nn.LayerNorm(channels)
        self.convolution = nn.Linear(3 * channels, channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Change a sequence [B, length, channels]; the first `num_past` frames are dropped."""
        y, step = self.norm(x), self.dilation
        y = torch.cat([y[:, : -2 * step], y[:, step:-step], y[:, 2 * step :]], -1)
        return x[:, self.num_past :] + self.project(F.gelu(self.convolution(y)))


def _without_level(mel_BCM: Tensor) -> Tensor:
    """Subtract the level (see `_subtract_level`) of the past 2 s, or of all if it is shorter."""
    total = F.pad(mel_BCM.cumsum(-1), (1, 0))
    stop = torch.arange(1, mel_BCM.shape[-1] + 1, device=mel_BCM.device)
    start = (stop - _LEVEL_MELS).clamp(min=0)
    mean = (total[..., stop] - total[..., start]) / (stop - start)
    return _subtract_level(mel_BCM, mean)


def _subtract_level(mel: Tensor, means: Tensor) -> Tensor:
    """Subtract half the mean of each bin and half the mean of all bins: [..., C, M]."""
    return mel - (means + means.mean(-2, keepdim=True)) / 2
