"""Decoder of the generator, from tokens and face features to mouth images.

Shape suffixes: B batch, T video frames, N = B x T, C channels, D width, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.models.encoders import group_norm
from talkinghead.models.lipsync.lip_seam import close_sides, warp_sides
from talkinghead.models.lipsync.lip_warp import (
    NUM_LIP_MAPS,
    LipWarper,
    lip_density,
    openness,
    warp_lips,
)
from talkinghead.models.lipsync.mouth_painting import MouthPainting, grid_steps

MAX_FLOW = 0.35
"""Maximum displacement that the residual flow adds, in half widths of the mouth box."""

_LIP_STAGES = 2

_LIP_DAMPING, _OPEN_DAMPING, _LIP_REACH = 0.1, 0.4, 0.14
"""How strongly the lips reduce the residual flow, also for references with an open mouth, whose
lips must meet; and their reach in half widths."""


@dataclass
class ReferenceFeatures:
    """Features of a reference face, computed once for all frames.

    Attributes:
        token: [B, D].
        mouth: mouth image [B, 3, k H, k W]; the outputs have this size, except for the flow.
        lips: lip landmarks [B, 20, 2], relative to the centre of the mouth's box in half widths.
        masked_face: features [B, C, H, W] of the masked reference for the context encoder.
        maps: one map [B, C, H, W] per decoder stage.
    """

    token: Tensor
    mouth: Tensor
    lips: Tensor
    masked_face: Tensor
    maps: list[Tensor]

    def expand(self, count: int) -> ReferenceFeatures:
        """Repeat each face for `count` frames: [B * count, ...]."""
        features = (self.token, self.mouth, self.lips, self.masked_face, *self.maps)
        token, mouth, lips, masked_face, *maps = (t.repeat_interleave(count, 0) for t in features)
        return ReferenceFeatures(token, mouth, lips, masked_face, maps)


@dataclass
class ContextFeatures:
    """Features of N masked faces: tokens [N, D] and maps for the first three decoder stages."""

    token: Tensor
    maps: list[Tensor]


@dataclass
class GeneratorOutput:
    """Mouth images in [0, 1] and their parts: mouth = mask * rgb + (1 - mask) * warped.

    Attributes from `residual` on are for training, and None in exports.

    Attributes:
        mouth: [..., 3, H, W].
        rgb: RGB output of the network [..., 3, H, W].
        warped: warped reference mouth [..., 3, H, W].
        mask: [..., 1, H, W].
        flow: [..., 2, H / 2, W / 2], position in the reference minus position in the output, (x, y)
            in half widths of the box, zero at its edge.
        sides: the flows of the upper and of the lower lip [..., 4, H / 2, W / 2]; `flow` is between
            them, and `warped` is made with them (see `warp_sides`).
        points: generated lip landmarks [..., 20, 2] in canonical pixels.
        residual: the part of the flow that is not caused by the lip landmarks.
        motion: lip motion [B, W, 20, 2] of every audio window, in canonical pixels.
        pseudo_label_motion: lip motion of the pseudo-labelled audio, in the same format.
    """

    mouth: Tensor
    rgb: Tensor
    warped: Tensor
    mask: Tensor
    flow: Tensor
    sides: Tensor
    points: Tensor
    residual: Tensor | None = None
    motion: Tensor | None = None
    pseudo_label_motion: Tensor | None = None

    def unflatten(self, batch: int) -> GeneratorOutput:
        """Reshape [B * T, ...] to [B, T, ...]."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return GeneratorOutput(**{n: value.unflatten(0, (batch, -1)) for n, value in known.items()})


class Decoder(nn.Module):
    """Upsampling CNN, 6 x 6 to 48 x 48, with FiLM conditioning and face features in every stage.

    The lip landmarks define an initial warp, which is also an input of the last stages; see
    `LipWarper`. The reference and the context channels are the widths of the maps of the two
    encoders.
    """

    fade: Tensor

    def __init__(
        self,
        dim: int,
        channels: Sequence[int],
        reference_channels: Sequence[int],
        context_channels: Sequence[int],
        mouth_size: int,
    ) -> None:
        super().__init__()
        self.sizes = [mouth_size // 16, mouth_size // 8, mouth_size // 4, mouth_size // 2]
        self.start = nn.Linear(dim, channels[0] * self.sizes[0] ** 2)
        widths = [*reversed(reference_channels)]
        widths[-1] += 12  # The last stage also takes the mouth image, 2 x 2 pixels per position.
        self.reference_maps = nn.ModuleList(
            nn.Conv2d(c, out, 1) for c, out in zip(widths, channels, strict=True)
        )
        self.context_maps = nn.ModuleList(
            nn.Conv2d(c, out, 1)
            for c, out in zip(reversed(context_channels), channels[:3], strict=False)
        )
        self.condition = nn.Sequential(nn.Linear(dim, dim), nn.SiLU())
        self.stages = nn.ModuleList(
            _Stage(c_in, c_out, dim)
            for c_in, c_out in zip((channels[0], *channels), channels, strict=False)
        )
        self.lips = LipWarper(dim)
        self.lip_maps = nn.ModuleList(
            nn.Conv2d(NUM_LIP_MAPS, c, 3, padding=1) for c in channels[-_LIP_STAGES:]
        )
        self.head = nn.Conv2d(channels[-1], 2 + 4 * 4, 3, padding=1)
        self._start_as_copy()
        self.register_buffer("fade", edge_fade(self.sizes[-1]), persistent=False)
        self.painting = MouthPainting(mouth_size)

    def _start_as_copy(self) -> None:
        """Initialise the head so that the output equals the reference."""
        assert self.head.bias is not None
        with torch.no_grad():
            self.head.weight[: 2 + 12] = 0
            self.head.bias.zero_()
            self.head.bias[2 + 12 :] = -1.0
            for layer in self.lip_maps:
                nn.init.zeros_(cast(nn.Conv2d, layer).weight)

    def project_reference(self, maps: list[Tensor], mouth: Tensor) -> list[Tensor]:
        """Project the feature maps of the reference to the input of every decoder stage."""
        if (scale := mouth.shape[-1] // (2 * self.sizes[-1])) > 1:
            mouth = F.avg_pool2d(mouth, scale)
        maps = [*maps[:-1], torch.cat([maps[-1], F.pixel_unshuffle(mouth, 2)], dim=1)]
        return [layer(m) for layer, m in zip(self.reference_maps, maps, strict=True)]

    def project_context(self, maps: list[Tensor]) -> list[Tensor]:
        """Project the feature maps of the context to the input of the first three stages."""
        return [layer(m) for layer, m in zip(self.context_maps, maps, strict=True)]

    def forward(
        self, tokens: Tensor, motion: Tensor, reference: ReferenceFeatures, context: ContextFeatures
    ) -> GeneratorOutput:
        """Decode tokens to frames [N, ...].

        Args:
            tokens: [N, D].
            motion: displacement [N, 20, 2] of closed lips by speech, in half widths.
            reference: N references or one, with projected maps.
            context: N contexts or one, with projected maps.
        """
        hidden = self.condition(tokens + reference.token + context.token)
        points = self.lips(motion, hidden, reference.lips)
        steps = grid_steps(self.sizes[-1], points.device)
        lips = warp_lips(steps, reference.lips, points)
        x = self.start(hidden).unflatten(1, (-1, self.sizes[0], self.sizes[0]))
        for index, stage in enumerate(self.stages):
            skip = reference.maps[index]
            if index < len(context.maps):
                skip = skip + context.maps[index]
            if (lip_stage := index + _LIP_STAGES - len(self.stages)) >= 0:
                maps = F.avg_pool2d(lips.maps, self.sizes[-1] // self.sizes[index])
                x = stage(x, skip, hidden, self.lip_maps[lip_stage](maps))
            else:
                x = stage(x, skip, hidden)
        head = self.head(x)
        # On the lips of people who are not in the training data, the landmarks are more reliable.
        is_open = openness(reference.lips)[:, None, None, None]
        damping = _LIP_DAMPING + (_OPEN_DAMPING - _LIP_DAMPING) * is_open
        residual_weight = torch.exp(-damping * lip_density(steps, steps, points, _LIP_REACH))
        residual = torch.tanh(head[:, :2]) * MAX_FLOW * residual_weight
        flow = (lips.flow + residual) * self.fade
        painted = F.pixel_shuffle(head[:, 2:], 2)
        sides = (lips.sides + residual.repeat(1, 2, 1, 1)) * self.fade
        sides = close_sides(steps, sides, reference.lips, points)
        warped = warp_sides(reference.mouth, sides, points)
        mouth_lips = reference.lips, self.lips.closed(reference.lips), points
        rgb, mask = self.painting(painted, warped, lips, mouth_lips, reference.mouth)
        mouth = mask * rgb + (1 - mask) * warped
        return GeneratorOutput(mouth, rgb, warped, mask, flow, sides, points, residual)


class _Stage(nn.Module):
    """Decoder stage: convolution, upsampling, sum with the skip connection, FiLM, convolution."""

    def __init__(self, in_channels: int, out_channels: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm1, self.norm2 = group_norm(out_channels), group_norm(out_channels)
        self.film = nn.Linear(dim, 2 * out_channels)

    def forward(
        self, x: Tensor, skip: Tensor, hidden: Tensor, lips: Tensor | None = None
    ) -> Tensor:
        x = self.conv1(x)
        if skip.shape[-1] != x.shape[-1]:
            x = F.interpolate(x, skip.shape[-2:], mode="nearest")
        scale, shift = self.film(hidden)[:, :, None, None].chunk(2, dim=1)
        # The order of these sums matters: OpenVINO 2026.4 drops all frames but one if the output of
        # a convolution (`lips`) is added first to a map that all frames share (`skip`).
        x = x + skip if lips is None else x + skip + lips
        x = F.silu(self.norm1(x) * (1 + scale) + shift)
        return x + F.silu(self.norm2(self.conv2(x)))


def edge_fade(size: int) -> Tensor:
    """Return weights [size, size] that rise from 0 at the edge to 1 at a distance of 12 %."""
    position = (torch.arange(size) + 0.5) / size
    depth = torch.minimum(position, 1 - position).div(0.12).clamp(0, 1)
    ramp = 0.5 - 0.5 * torch.cos(torch.pi * depth)
    return ramp[:, None] * ramp[None, :]
