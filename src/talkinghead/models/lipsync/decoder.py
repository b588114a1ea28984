"""The picture's side of the generator: tokens and face features to the mouth's frames.

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
from talkinghead.models.lipsync.lip_warp import (
    NUM_LIP_MAPS,
    LipWarper,
    inside_lips,
    lip_gaps,
    warp_lips,
)
from talkinghead.models.lipsync.mouth_interior import mouth_interior

MAX_FLOW = 0.35
"""The longest displacement beside the lips' own, in half widths of the mouth's box."""

_LIP_STAGES = 2
_PAINT_INSIDE = 4.0
"""How much readier to paint between the lips than beside them, as a logit."""

_TINT, _SHADOW = 0.2, 3.0
"""How much of the paint counts between the lips; the shadow in which drawn teeth lie, a logit."""

_LEAST_GAP, _TORN = 0.01, 0.3
"""In half widths; and the share of the gap that is too little to be drawn out."""


@dataclass
class ReferenceFeatures:
    """A face encoded once.

    Its token [B, D], its mouth [B, 3, H, W], its lips [B, 20, 2] in half widths of the mouth's box
    from its middle, its share of the context [B, C, H, W] and one map a decoder stage [B, C, H, W].
    """

    token: Tensor
    mouth: Tensor
    lips: Tensor
    masked_face: Tensor
    maps: list[Tensor]

    def expand(self, count: int) -> ReferenceFeatures:
        """Each face `count` times over: [B * count, ...], for as many frames of it."""
        one = (self.token, self.mouth, self.lips, self.masked_face, *self.maps)
        token, mouth, lips, masked_face, *maps = (t.repeat_interleave(count, 0) for t in one)
        return ReferenceFeatures(token, mouth, lips, masked_face, maps)


@dataclass
class ContextFeatures:
    """The masked_face of N mouths: tokens [N, D] and maps for the first three decoder stages."""

    token: Tensor
    maps: list[Tensor]


@dataclass
class GeneratorOutput:
    """Mouths in [0, 1] and what they were made of: mouth = mask * rgb + (1 - mask) * warped.

    `mouth`, `rgb`, `warped` [..., 3, H, W]; `mask` [..., 1, H, W]; `flow` [..., 2, H / 2, W / 2]:
    where in the reference mouth each pixel comes from, less where it is, (x, y) in half widths of
    the box, and zero at its edge.

    For training, and None in exports: `points` [..., 20, 2], where the lips go, canonical pixels;
    `residual`, the part of the flow that the lips do not bring about; `motion` [B, W, 20, 2], what
    the speech alone does to lips, canonical pixels, for every audio window of a stretch; `spoken`
    likewise, for other speech.
    """

    mouth: Tensor
    rgb: Tensor
    warped: Tensor
    mask: Tensor
    flow: Tensor
    points: Tensor | None = None
    residual: Tensor | None = None
    motion: Tensor | None = None
    spoken: Tensor | None = None

    def unflatten(self, batch: int) -> GeneratorOutput:
        """[B * T, ...] to [B, T, ...]."""
        values = (
            self.mouth,
            self.rgb,
            self.warped,
            self.mask,
            self.flow,
            self.points,
            self.residual,
        )
        return GeneratorOutput(*(cast(Tensor, v).unflatten(0, (batch, -1)) for v in values))


class Decoder(nn.Module):
    """Upsampling CNN, 6 x 6 to 48 x 48: FiLM by the tokens, face features at every stage.

    The lips' own motion is a warp to begin with, and a cue where to paint; see `LipWarper`.
    """

    fade: Tensor
    prior: Tensor

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
        widths[-1] += 12  # The last stage also sees the mouth's own pixels, four to a place.
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
        self.register_buffer("prior", lip_mask_prior(mouth_size), persistent=False)

    def _start_as_copy(self) -> None:
        assert self.head.bias is not None
        with torch.no_grad():
            self.head.weight[: 2 + 12] = 0
            self.head.bias.zero_()
            self.head.bias[2 + 12 :] = -1.0
            for layer in self.lip_maps:
                nn.init.zeros_(cast(nn.Conv2d, layer).weight)

    def project_reference(self, maps: list[Tensor], mouth: Tensor) -> list[Tensor]:
        """The reference's share of every stage, computed once."""
        maps = [*maps[:-1], torch.cat([maps[-1], F.pixel_unshuffle(mouth, 2)], dim=1)]
        return [layer(m) for layer, m in zip(self.reference_maps, maps, strict=True)]

    def project_context(self, maps: list[Tensor]) -> list[Tensor]:
        """The context's share of the first three stages."""
        return [layer(m) for layer, m in zip(self.context_maps, maps, strict=True)]

    def forward(
        self, tokens: Tensor, motion: Tensor, reference: ReferenceFeatures, context: ContextFeatures
    ) -> GeneratorOutput:
        """Tokens [N, D], with projected reference and context maps, to frames [N, ...].

        `motion` [N, 20, 2] is what the speech does to closed lips, in half widths.
        """
        hidden = self.condition(tokens + reference.token + context.token)
        points = self.lips(motion, hidden, reference.lips)
        lips = warp_lips(grid_steps(self.sizes[-1], points.device), reference.lips, points)
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
        residual = torch.tanh(head[:, :2]) * MAX_FLOW
        flow = (lips.flow + residual) * self.fade
        painted = F.pixel_shuffle(head[:, 2:], 2)
        steps = grid_steps(2 * self.sizes[-1], points.device)
        inside = inside_lips(steps, points)
        warped = warp(reference.mouth, flow)
        # Painted over the warped skin, not from nothing: only what no warp brings must be learnt.
        # Of a mouth that the reference shows closed, or much less open, what every mouth has inside
        # is drawn. Inside, paint but tints: it was learnt of few people's teeth.
        kept = _kept(reference.lips, points)[:, None]
        bare = inside * (1 - F.interpolate(lips.shown * kept, scale_factor=2, mode="bilinear"))
        mask = torch.sigmoid(painted[:, 3:] + _PAINT_INSIDE * inside)
        mask = torch.lerp(mask, torch.ones_like(mask), bare) * self.prior
        closed = self.lips.closed(reference.lips)
        drawn = torch.logit(mouth_interior(steps, closed, reference.mouth, self.prior))
        skin = torch.logit(_full(warped), eps=0.02)
        shadow = _SHADOW * bare * (1 - bare)
        near = F.interpolate((2 * lips.maps[:, :1]).clamp(max=1), scale_factor=2, mode="bilinear")
        paint = painted[:, :3] * (1 - (1 - _TINT) * near)
        rgb = torch.sigmoid(torch.lerp(skin, drawn, bare) + paint - shadow)
        mouth = mask * rgb + (1 - mask) * warped
        return GeneratorOutput(mouth, rgb, warped, mask, flow, points, residual)


def _kept(reference: Tensor, moved: Tensor) -> Tensor:
    """How far the gap between a reference's lips lasts for that between the moved: [N, 1, 1]."""
    before, now = (lip_gaps(lips).mean(1) for lips in (reference, moved))
    share = (before + _LEAST_GAP) / (now + _LEAST_GAP)
    return ((share - _TORN) / _TORN).clamp(0, 1)[:, None, None]


class _Stage(nn.Module):
    """Upsample where the skip is larger, convolve, add the skip, modulate, convolve."""

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
        # In this order: OpenVINO 2026.4 loses all frames but one where what a convolution gives
        # meets first a map that all of them share, as `skip` may be.
        x = x + skip if lips is None else x + skip + lips
        x = F.silu(self.norm1(x) * (1 + scale) + shift)
        return x + F.silu(self.norm2(self.conv2(x)))


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Image [N or 1, C, H, W] seen through a flow [N, 2, h, w] in half widths, upsampled."""
    size = image.shape[-1]
    if flow.shape[-1] != size:
        flow = F.interpolate(flow, (size, size), mode="bilinear")
    grid = identity_grid(size, flow.device) + _full(flow).permute(0, 2, 3, 1)
    image = image.expand(grid.shape[0], -1, -1, -1)
    return F.grid_sample(image, grid.to(image.dtype), align_corners=False, padding_mode="border")


def _full(values: Tensor) -> Tensor:
    """Half precision to full; more stays as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def grid_steps(size: int, device: torch.device) -> Tensor:
    """The middles of `size` pixels that fill [-1, 1]."""
    return (torch.arange(size, device=device) + 0.5) * 2 / size - 1


def identity_grid(size: int, device: torch.device) -> Tensor:
    """The sampling grid [1, size, size, 2] in [-1, 1] that changes nothing."""
    steps = grid_steps(size, device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1).unsqueeze(0)


def edge_fade(size: int, border: float = 0.12) -> Tensor:
    """[size, size]: 0 at the edge, 1 from `border` inwards, a raised cosine between."""
    place = (torch.arange(size) + 0.5) / size
    depth = torch.minimum(place, 1 - place).div(border).clamp(0, 1)
    ramp = 0.5 - 0.5 * torch.cos(torch.pi * depth)
    return ramp[:, None] * ramp[None, :]


def lip_mask_prior(size: int) -> Tensor:
    """[size, size]: where RGB may paint.

    An ellipse around the lips, open or closed, soft at its rim.
    """
    place = (torch.arange(size) + 0.5) / size
    radius = torch.sqrt(
        ((place[None, :] - 0.5) / 0.38).square() + ((place[:, None] - 0.44) / 0.36).square()
    )
    return ((1 - radius) / 0.3).clamp(0, 1)


def lip_box(size: int) -> tuple[slice, slice]:
    """The rows and columns in which `lip_mask_prior` lets RGB paint."""
    painted = lip_mask_prior(size) > 0
    rows, columns = (painted.any(axis).nonzero() for axis in (1, 0))
    return (
        slice(int(rows.min()), int(rows.max()) + 1),
        slice(int(columns.min()), int(columns.max()) + 1),
    )
