"""The RGB output of the decoder: its colours, blended with the drawn mouth interior.

The colours of the network have `mouth_size` pixels per side. Lips, teeth and the warped texture are
added at the resolution of the reference's mouth image, which may be a multiple of it.

Shape suffixes: N frames, C channels, S positions per axis of the mouth image, H and W of the part
of it that contains the region of the RGB output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkinghead.models.lipsync.lip_warp import LipWarp, inside_lips, lip_density, lip_gaps
from talkinghead.models.lipsync.mouth_interior import draw_mouth_interior, luminance

_INSIDE_LOGIT = 4.0
"""Value that is added to the logit of the mask between the lips."""

_TINT, _LIP_REACH = 0.2, 0.07
"""Weight of the network's colours on and between the lips; reach of the lips in half widths."""

_SHADOW = 3.0
"""Darkening (logit) of the drawn interior's rim."""

_MIN_GAP, _DARK_RATIO, _TEETH_RATIO = 0.01, 0.55, 0.3
"""Offset of lip gaps in half widths; ratio of the reference's gap to the generated one below which
the reference's interior is not used: if it is dark, and if it shows teeth, which may be enlarged
more."""

_TEETH_LIGHT = 0.62, 0.8
"""Luminance of the reference's interior, relative to the skin, from which it may show teeth, and
from which it does."""

_RATIO_RANGE = 0.3
"""Increase of the ratio in which the weight of the reference's interior rises from 0 to 1."""


class MouthPainting(nn.Module):
    """Paint the region around the lips.

    The network's colours are added to the warped skin, or to a drawn mouth interior where the mouth
    of the reference is closed or much less open. On and between the lips they have a low weight:
    lips and teeth learnt from few people look wrong on others. The output of the network has
    `mouth_size` pixels per side.
    """

    prior: Tensor
    cheeks: Tensor

    def __init__(self, mouth_size: int) -> None:
        super().__init__()
        prior = lip_mask_prior(mouth_size)
        self.register_buffer("prior", prior[None, None], persistent=False)
        cheeks = (prior == 0).float()
        cheeks[mouth_size // 2 :] = 0
        self.register_buffer("cheeks", cheeks[None, None], persistent=False)
        self._box = lip_box(mouth_size)

    def forward(
        self,
        painted: Tensor,
        warped: Tensor,
        warp: LipWarp,
        lips: tuple[Tensor, Tensor, Tensor],
        mouth: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return RGB [N, 3, S, S] and mask [N, 1, S, S]; both are 0 outside of the region.

        Args:
            painted: colours and mask of the network, logits [N, 4, mouth_size, mouth_size].
            warped: the warped mouth image of the reference [N, 3, S, S].
            warp: the warp of the lips.
            lips: lips of the reference and the same when closed [N or 1, 20, 2], and the displaced
                lips [N, 20, 2].
            mouth: the mouth image of the reference [N or 1, 3, S, S].
        """
        reference, closed, moved = lips
        size = mouth.shape[-1]
        rows, columns = (self._scaled(part, size) for part in self._box)
        steps = grid_steps(size, painted.device)
        x, y = steps[columns], steps[rows]

        skin_colour = self._skin_colour(mouth)
        interior_light = _mean(luminance(mouth), inside_lips(steps, steps, reference))
        teeth = _ramp(interior_light / luminance(skin_colour).clamp_min(0.05), *_TEETH_LIGHT)
        usable = _interior_weight(reference, moved, teeth)

        def enlarge(maps: Tensor) -> Tensor:
            return _enlarge(maps, size)[..., rows, columns]

        inside, shown = inside_lips(x, y, moved), enlarge(warp.shown * usable)
        hidden = inside * (1 - shown)
        logits = enlarge(painted)
        mask = torch.sigmoid(logits[:, 3:] + _INSIDE_LOGIT * inside)
        mask = torch.lerp(mask, torch.ones_like(mask), hidden) * enlarge(self.prior)
        drawn = torch.logit(draw_mouth_interior(x, y, closed, moved, skin_colour))
        skin = torch.logit(at_least_float32(warped[..., rows, columns]), eps=0.02)
        shadow = _SHADOW * hidden * (1 - hidden)
        near = enlarge((2 * warp.maps[:, :1]).clamp(max=1))
        near = torch.maximum(near, lip_density(x, y, moved, _LIP_REACH).clamp(max=1))
        tint = logits[:, :3] * (1 - (1 - _TINT) * near)
        rgb = torch.sigmoid(torch.lerp(skin, drawn, hidden) + tint - shadow)
        outside = columns.start, size - columns.stop, rows.start, size - rows.stop
        return F.pad(rgb, outside), F.pad(mask, outside)

    def _skin_colour(self, mouth: Tensor) -> Tensor:
        """Return the colour [N, 3, 1, 1] of the cheeks, without their darker half.

        In a turned head, hair or a shadow is at the place of a cheek.
        """
        cheeks, light = _enlarge(self.cheeks, mouth.shape[-1]), luminance(mouth)
        return _mean(mouth, cheeks * (light > _mean(light, cheeks)).to(light.dtype))

    def _scaled(self, part: slice, size: int) -> slice:
        scale = size // self.prior.shape[-1]
        return slice(part.start * scale, part.stop * scale)


def grid_steps(size: int, device: torch.device) -> Tensor:
    """Return the coordinates of the centres of `size` pixels that cover [-1, 1]."""
    return (torch.arange(size, device=device) + 0.5) * 2 / size - 1


def lip_mask_prior(size: int) -> Tensor:
    """Return the region [size, size] of the RGB output: a soft ellipse around the lips."""
    position = (torch.arange(size) + 0.5) / size
    radius = torch.sqrt(
        ((position[None, :] - 0.5) / 0.38).square() + ((position[:, None] - 0.44) / 0.36).square()
    )
    return ((1 - radius) / 0.3).clamp(0, 1)


def lip_box(size: int) -> tuple[slice, slice]:
    """Return the rows and columns of the bounding box of `lip_mask_prior`."""
    painted = lip_mask_prior(size) > 0
    rows, columns = (painted.any(axis).nonzero() for axis in (1, 0))
    return (
        slice(int(rows.min()), int(rows.max()) + 1),
        slice(int(columns.min()), int(columns.max()) + 1),
    )


def at_least_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32; leave other types unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _enlarge(maps: Tensor, size: int) -> Tensor:
    """Enlarge maps [N, C, H, W] to [N, C, size, size] by bilinear interpolation."""
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, (size, size), mode="bilinear")


def _interior_weight(reference: Tensor, moved: Tensor, teeth: Tensor) -> Tensor:
    """Return the weight [N, 1, 1, 1] of the reference's interior.

    The lips are those of the reference [N or 1, 20, 2] and the displaced ones [N, 20, 2]; `teeth`,
    [N or 1, 1, 1, 1] in [0, 1], is whether the reference shows teeth.
    """
    before, after = (lip_gaps(lips).mean(1) for lips in (reference, moved))
    ratio = ((before + _MIN_GAP) / (after + _MIN_GAP))[:, None, None, None]
    lowest = _DARK_RATIO + (_TEETH_RATIO - _DARK_RATIO) * teeth
    return _ramp(ratio, lowest, lowest + _RATIO_RANGE)


def _mean(image: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean [N, C, 1, 1] of an image [N, C, S, S]."""
    total = weight.sum((-2, -1), keepdim=True).clamp_min(1e-3)
    return (image * weight).sum((2, 3), keepdim=True) / total


def _ramp(value: Tensor, start: Tensor | float, end: Tensor | float) -> Tensor:
    """Return 0 below `start`, 1 above `end`, and linear values between."""
    return ((value - start) / (end - start)).clamp(0, 1)
