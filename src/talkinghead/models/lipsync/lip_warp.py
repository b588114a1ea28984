"""Lips that move as landmarks do: what carries a mouth's motion over to a face never seen before.

A network that has met few faces does not know where a stranger's lips are. A detector does. So the
reference's lips are given, the speech says where they go, and the skin around follows by
interpolation, the upper lip's by itself and the lower lip's by itself: between them the mouth
opens, whoever's it is. The decoder adds what this leaves out (jaw, cheeks, teeth).

Coordinates (x, y) are half widths of the mouth's box, from its middle; points are in ibug68's
order.

Shape suffixes: N frames, P = 20 points, H and W places of the flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from talkinghead.features.faces.alignment import NUM_LIP_POINTS

NUM_LIP_MAPS = 4
MAX_SHIFT = 0.15
"""How far a face's own lips are taken from where the speech alone puts them, in half widths."""

_UPPER = (0, 1, 2, 3, 4, 5, 6, 12, 13, 14, 15, 16)
_LOWER = (0, 6, 7, 8, 9, 10, 11, 12, 16, 17, 18, 19)
UPPER_EDGE, _LOWER_EDGE = (12, 13, 14, 15, 16), (12, 19, 18, 17, 16)
# Which of the three gaps (right, middle, left) between the inner lips closes below a point, and how
# much of it: the jaw moves more than the upper lip.
_GAP = (0, 0, 0, 1, 2, 2, 0, 2, 2, 1, 0, 0, 0, 0, 1, 2, 0, 2, 1, 0)
_SHARE = (0, 1, 1, 1, 1, 1, 0, -3, -3, -3, -3, -3, 0, 1, 1, 1, 0, -3, -3, -3)
_REACH = 0.14
_NEAR = 0.05
_SOFT, _SHARP = 0.03, 0.012
_SHORTEST = 0.02
"""Between two points of an edge, a pixel: over less it would jump where rounding decides."""


@dataclass
class LipWarp:
    """`flow` [N, 2, H, W]; `maps` [N, NUM_LIP_MAPS, H, W] tell the decoder about it.

    The maps: how far a place is inside the mouth; how far what is warped there is; ten times the
    flow. `shown` [N, 1, H, W] in [0, 1]: whether the reference shows a mouth's inside there, which
    it does not between closed lips.
    """

    flow: Tensor
    maps: Tensor
    shown: Tensor


class LipWarper(nn.Module):
    """From a reference's lips and a token to where they go.

    Args:
        dim: width of the token.

    Paper: Nadaraya, "On estimating regression", 1964, for the interpolation.
    """

    _gap: Tensor
    _share: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Linear(dim + 2 * NUM_LIP_POINTS, 2 * NUM_LIP_POINTS)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)
        self.register_buffer("_gap", torch.tensor(_GAP), persistent=False)
        self.register_buffer("_share", torch.tensor(_SHARE) / 4, persistent=False)

    def closed(self, lips: Tensor) -> Tensor:
        """Lips [N, 20, 2] with the gap between them shut."""
        gaps = lip_gaps(lips)
        return torch.stack([lips[..., 0], lips[..., 1] + gaps[:, self._gap] * self._share], -1)

    def forward(self, motion: Tensor, hidden: Tensor, lips: Tensor) -> Tensor:
        """Where the lips go: [N, 20, 2].

        Args:
            motion: [N, 20, 2], what the speech alone does to closed lips.
            hidden: [N, D], of speech, face and masked_face.
            lips: [N or 1, 20, 2], the reference's.
        """
        lips = lips.expand(hidden.shape[0], -1, -1)
        shift = self.shift(torch.cat([hidden, lips.flatten(1).to(hidden.dtype)], 1))
        moved = motion + MAX_SHIFT * torch.tanh(shift).unflatten(1, (-1, 2))
        return self.closed(lips) + moved.to(lips.dtype)


def warp_lips(steps: Tensor, lips: Tensor, moved: Tensor) -> LipWarp:
    """The flow that takes each place to where the reference shows what belongs there.

    Args:
        steps: [S], the places' coordinates, across as well as down.
        lips: [N or 1, 20, 2], the reference's.
        moved: [N, 20, 2], where they go.
    """
    lips = lips.expand(moved.shape[0], -1, -1)
    inside, below = _inside(steps[None, None], steps[None, :, None], moved)
    upper, lower = (_carry(steps, lips, moved, points) for points in (_UPPER, _LOWER))
    flow = torch.lerp(upper, lower, below[:, None])
    known = flow.detach()  # A cue: nothing is to be learnt through it.
    depth, _ = _depth(steps + known[:, 0], steps[:, None] + known[:, 1], lips)
    maps = torch.stack([inside, torch.sigmoid(depth / _SOFT)], 1)
    shown = torch.sigmoid((depth - 2 * _SHARP) / _SHARP)[:, None]
    return LipWarp(flow, torch.cat([maps, 10 * known], 1), shown)


def lip_gaps(lips: Tensor) -> Tensor:
    """The gaps between lips [N, 20, 2], right, middle and left: [N, 3]."""
    return (lips[:, [19, 18, 17], 1] - lips[:, [13, 14, 15], 1]).clamp_min(0)


def inside_lips(steps: Tensor, lips: Tensor) -> Tensor:
    """How far each place is well between lips [N, 20, 2]: [N, 1, S, S], in [0, 1]."""
    depth, _ = _depth(steps[None, None], steps[None, :, None], lips)
    return torch.sigmoid((depth - _SHARP) / _SHARP)[:, None]


def _carry(steps: Tensor, lips: Tensor, moved: Tensor, points: tuple[int, ...]) -> Tensor:
    """The displacement [N, 2, S, S] that some points bring about."""
    place, path = moved[:, points, :, None], (lips - moved)[:, points]
    near = torch.exp((steps - place).square() / (-2 * _REACH**2))
    across, down = near[:, :, 0], near[:, :, 1].mT  # A Gaussian is a product.
    total = (down @ across).to(moved.dtype) + _NEAR
    sums = [((down * path[:, None, :, i]) @ across).to(moved.dtype) for i in (0, 1)]
    return torch.stack(sums, 1) / total[:, None]


def _inside(x: Tensor, y: Tensor, lips: Tensor) -> tuple[Tensor, Tensor]:
    """How far places are between the lips, and below their line: [N, H, W].

    `x` [N or 1, H or 1, W] and `y` [N or 1, H, W or 1].
    """
    depth, below = _depth(x, y, lips)
    return torch.sigmoid(depth / _SOFT), torch.sigmoid(below / _SOFT)


def _depth(x: Tensor, y: Tensor, lips: Tensor) -> tuple[Tensor, Tensor]:
    """How deep between the lips, and how far below their line: [N, H, W], half widths."""
    top, bottom = (lip_edge(x, lips[:, points]) for points in (UPPER_EDGE, _LOWER_EDGE))
    right, left = lips[:, 12, 0, None, None], lips[:, 16, 0, None, None]
    depth = torch.minimum(torch.minimum(y - top, bottom - y), torch.minimum(x - right, left - x))
    return depth, y - (top + bottom) / 2


def lip_edge(x: Tensor, points: Tensor) -> Tensor:
    """The height of a lip's edge at x [N or 1, H, W]: [N, H, W].

    `points` [N, 5, 2] go from corner to corner, left to right. A cubic leads from one to the next,
    round at either corner, as smooth as monotone; beyond the corners it is level.

    Paper: Fritsch & Butland, "A method for constructing local monotone piecewise cubic
    interpolants", 1984.
    """
    place, height = points[:, None, None].unbind(-1)
    length, rise = place.diff(dim=-1).clamp_min(_SHORTEST), height.diff(dim=-1)
    slope = rise / length
    before, after = slope[..., :-1], slope[..., 1:]
    steep = before.abs() + after.abs() + 1e-6
    inner = 2 * (before * after).clamp_min(0) / steep * before.sign()
    slopes = torch.cat([3 * slope[..., :1], inner, 3 * slope[..., -1:]], -1)
    s = ((x[..., None] - place[..., :-1]) / length).clamp(0, 1)
    bend = (slopes[..., :-1] * (1 - s) - slopes[..., 1:] * s) * length
    return height[..., 0] + (s * s * (3 - 2 * s) * rise + s * (1 - s) * bend).sum(-1)
