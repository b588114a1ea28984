"""Procedural mouth interior (teeth and dark cavity) for references that show none.

No warp can fill the gap between lips that are closed in the reference, and a network that learnt
interiors of few people paints a haze on unseen faces. Interiors differ little between people, so
they are drawn and only tinted by the network.

Coordinates are those of `lip_warp`. Shape suffixes: B references, S positions per axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkinghead.models.lipsync.lip_warp import UPPER_EDGE, lip_edge
from talkinghead.types import LUMA

_TEETH_LENGTH, _TEETH_CURVE = 0.09, 0.6
"""Visible length of the upper teeth in mouth widths, and its relative decrease at the sides."""

_TEETH_EXTENT, _SIDE_DARKENING = 0.8, 0.45
"""Half width of the teeth in half mouth widths, and their darkening at the mouth's corners."""

_GAPS, _GAP_WIDTH, _GAP_DEPTH = (-0.6, -0.34, 0.0, 0.34, 0.6), 0.035, 0.1
"""Positions between adjacent teeth in half mouth widths, width and darkening of the gaps."""

_BRIGHTNESS, _GREYNESS = 1.25, 0.55
"""Teeth relative to the face: brightness, and blend towards grey."""

_CAVITY = (0.3, 0.16, 0.16)
"""Red, green and blue of the cavity relative to the face."""

_SOFT = 0.006


def mouth_interior(steps: Tensor, closed: Tensor, mouth: Tensor, weight: Tensor) -> Tensor:
    """Draw the upper teeth, which move with the head, and the cavity: [B, 3, S, S] in (0, 1).

    Args:
        steps: [S], coordinates of the positions on both axes.
        closed: the face's closed lips [B, 20, 2].
        mouth: the reference's mouth [B, 3, S, S] in [0, 1].
        weight: [S, S], weights with which the face's colour is averaged.
    """
    across, down = steps[None, None], steps[None, :, None]
    right, left = closed[:, 12, 0, None, None], closed[:, 16, 0, None, None]
    width = (left - right).clamp_min(1e-3)
    side = (across - (left + right) / 2) * 2 / width
    length = width * _TEETH_LENGTH * (1 - _TEETH_CURVE * side.square())
    bottom = lip_edge(across, closed[:, UPPER_EDGE]) + length
    teeth_mask = torch.sigmoid((bottom - down) / _SOFT) * torch.sigmoid(
        (_TEETH_EXTENT - side.abs()) * 20
    )
    light = 1 - _SIDE_DARKENING * side.square()
    for gap in _GAPS:
        light = light * (1 - _GAP_DEPTH * torch.exp(-(((side - gap) / _GAP_WIDTH) ** 2) / 2))
    face = (mouth * weight).sum((2, 3), keepdim=True) / weight.sum()
    grey = (face * face.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    teeth = torch.lerp(face, grey, _GREYNESS) * _BRIGHTNESS * light[:, None]
    cavity = face * face.new_tensor(_CAVITY)[:, None, None]
    return torch.lerp(cavity, teeth, teeth_mask[:, None]).clamp(0.02, 0.96)
