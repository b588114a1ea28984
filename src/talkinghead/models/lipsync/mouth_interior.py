"""What a mouth has behind its lips, for faces that have not shown it: teeth, and the dark.

Nothing can be warped to where lips part that were closed, and what a network has learnt to paint
there of a few people's mouths it paints over a stranger's as a haze. Teeth and the dark look
alike in everybody: they are drawn, and the network but tints them.

Coordinates are those of `lip_warp`. Shape suffixes: B references, S places across and down.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkinghead.models.lipsync.lip_warp import UPPER_EDGE, lip_edge
from talkinghead.types import LUMA

_SHOWN, _SMILE = 0.09, 0.6
"""How far upper teeth reach below closed lips, in mouth widths, and how much less at the sides."""

_OUTERMOST, _OUT_OF_LIGHT = 0.8, 0.45
_GAPS, _GAP_WIDTH, _GAP_DEPTH = (-0.6, -0.34, 0.0, 0.34, 0.6), 0.035, 0.1
"""Where two teeth meet, in half mouth widths from the middle: incisors and canines."""

_WHITE, _WHITENESS = 1.25, 0.55
"""Of teeth, beside the face: how much lighter, and how much nearer to grey."""

_DARK = (0.3, 0.16, 0.16)
"""What is left of the face's red, green and blue behind the teeth."""

_SOFT = 0.006


def mouth_interior(steps: Tensor, closed: Tensor, mouth: Tensor, weight: Tensor) -> Tensor:
    """Upper teeth, which stay with the head, and the dark below them: [B, 3, S, S] in (0, 1).

    Args:
        steps: [S], the places' coordinates, across as well as down.
        closed: [B, 20, 2], the face's lips without a gap between them.
        mouth: [B, 3, S, S] in [0, 1], the reference's.
        weight: [S, S], where the face's colour and light are to be read from it.
    """
    across, down = steps[None, None], steps[None, :, None]
    right, left = closed[:, 12, 0, None, None], closed[:, 16, 0, None, None]
    width = (left - right).clamp_min(1e-3)
    side = (across - (left + right) / 2) * 2 / width
    reach = width * _SHOWN * (1 - _SMILE * side.square())
    bottom = lip_edge(across, closed[:, UPPER_EDGE]) + reach
    tooth = torch.sigmoid((bottom - down) / _SOFT) * torch.sigmoid((_OUTERMOST - side.abs()) * 20)
    light = 1 - _OUT_OF_LIGHT * side.square()
    for gap in _GAPS:
        light = light * (1 - _GAP_DEPTH * torch.exp(-(((side - gap) / _GAP_WIDTH) ** 2) / 2))
    face = (mouth * weight).sum((2, 3), keepdim=True) / weight.sum()
    grey = (face * face.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    white = torch.lerp(face, grey, _WHITENESS) * _WHITE * light[:, None]
    dark = face * face.new_tensor(_DARK)[:, None, None]
    return torch.lerp(dark, white, tooth[:, None]).clamp(0.02, 0.96)
