"""Sync expert: network that embeds mouth motion and speech in one vector space.

Shape suffixes: B batch, T video frames of a window, C channels or feature rows, K mel frames, D
embedding width, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.models.encoders import AudioEncoder, conv_layers
from talkinghead.types import LUMA
from talkinghead.value_rules import PositiveInt

_MAX_SCALE = 100.0


class SyncDiscriminator(nn.Module):
    """Network that embeds windows of mouth images and of audio as unit vectors in one space.

    Mouths are converted to grey, the clip's mean image is subtracted and the result normalised,
    which removes identity and keeps motion. Embeddings are not rectified, so cosines cover [-1, 1].

    Args:
        num_frames: number of video frames in a window.
        dim: width of the embeddings.
        image_size: size to which mouth images are resized.
        image_channels: three channel widths, at 1/2, 1/4 and 1/8 of `image_size`.
        audio_features: audio features; see `AudioEncoder`.
        audio_channels: four channel widths of the audio encoder.
        audio_dim: width of a frame's audio token.
        num_mels: see `AVSpec`.
        mel_window: see `AVSpec`.

    Paper: Chung and Zisserman, "Out of time", 2016; Prajwal et al., 2020, arXiv:2008.10010; van den
        Oord et al., 2018, arXiv:1807.03748, for the contrastive use.
    """

    def __init__(
        self,
        num_frames: PositiveInt = 5,
        dim: PositiveInt = 256,
        image_size: PositiveInt = 48,
        image_channels: Sequence[int] = (48, 96, 192),
        audio_features: Sequence[str] = ("mel",),
        audio_channels: Sequence[int] = (24, 48, 96, 128),
        audio_dim: PositiveInt = 128,
        num_mels: int = 80,
        mel_window: int = 16,
    ) -> None:
        super().__init__()
        self.num_frames, self.image_size = num_frames, image_size
        layers: list[nn.Module] = []
        for before, width in pairwise((num_frames, *image_channels)):
            layers += [*conv_layers(before, width, stride=2), *conv_layers(width, width)]
        self.image_encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())
        self.image_project = nn.Linear(image_channels[-1] * 9, dim)
        self.audio_encoder = AudioEncoder(
            audio_features, num_mels, mel_window, audio_channels, audio_dim
        )
        self.audio_project = nn.Sequential(
            nn.Linear(num_frames * audio_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.log_scale = nn.Parameter(torch.tensor(2.6))

    @property
    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss."""
        return self.log_scale.exp().clamp(max=_MAX_SCALE)

    def forward(
        self, mouths_BTCHW: Tensor, mean_mouth_BCHW: Tensor, audio_BTCK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the video and audio embeddings of windows, both [B, D]."""
        return self.embed_video(mouths_BTCHW, mean_mouth_BCHW), self.embed_audio(audio_BTCK)

    def embed_video(self, mouths_BTCHW: Tensor, mean_mouth_BCHW: Tensor) -> Tensor:
        """Embed mouths [B, T, 3, H, W] in [0, 1], minus the mean mouth, as unit vectors [B, D]."""
        frames = self._grey(mouths_BTCHW.flatten(0, 1)).unflatten(0, mouths_BTCHW.shape[:2])
        moving = (frames - self._grey(mean_mouth_BCHW).unsqueeze(1)).squeeze(2)
        size = moving.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        # The constant prevents amplification of the noise of a motionless mouth.
        embedding = self.image_project(self.image_encoder(moving / (size + 0.01)))
        return F.normalize(embedding, dim=1)

    def embed_audio(self, audio_BTCK: Tensor) -> Tensor:
        """Embed audio windows [B, T, C, K], one per frame, as unit vectors [B, D]."""
        tokens = self.audio_encoder(audio_BTCK.flatten(0, 1))
        embedding = self.audio_project(tokens.view(audio_BTCK.shape[0], -1))
        return F.normalize(embedding, dim=1)

    def _grey(self, images: Tensor) -> Tensor:
        weights = torch.tensor(LUMA, device=images.device, dtype=images.dtype).view(3, 1, 1)
        grey = (images * weights).sum(1, keepdim=True)
        return F.interpolate(grey, (self.image_size,) * 2, mode="bilinear", antialias=True)
