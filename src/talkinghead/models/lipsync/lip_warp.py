"""Warp of the reference's mouth by lip landmarks.

A network trained on few faces does not locate the lips of unseen ones reliably, but a landmark
detector does. The reference's detected lips are displaced by the lip motion, and the surrounding
skin follows by interpolation, separately for the upper and the lower lip, so the mouth opens
between them. The decoder adds the rest: jaw, cheeks and teeth.

Coordinates (x, y) are relative to the centre of the mouth's box, in half widths of the box; points
are in ibug68's order.

Shape suffixes: N frames, P = 20 points, H and W positions of the flow, S positions per axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from talkinghead.features.faces.alignment import NUM_LIP_POINTS

NUM_LIP_MAPS = 4
MAX_SHIFT = 0.15
"""Maximum face-specific displacement, added to the predicted lip motion, in half widths.

It moves and shapes the lips, but does not part or close them: learnt from few people, it reduced
the motion of the gap to 0.76 in photos of other faces, and parted their closed lips
(docs/research-log.md).
"""

# Indices are tensors, because torch converts each number of a sequence separately.
_UPPER = torch.tensor((0, 1, 2, 3, 4, 5, 6, 12, 13, 14, 15, 16))
_LOWER = torch.tensor((0, 6, 7, 8, 9, 10, 11, 12, 16, 17, 18, 19))
UPPER_EDGE, LOWER_EDGE = torch.tensor((12, 13, 14, 15, 16)), torch.tensor((12, 19, 18, 17, 16))
"""Points of the edges of the inner lips, from left to right in the image."""

_EDGES = torch.stack([UPPER_EDGE, LOWER_EDGE])
_INNER_UPPER, _INNER_LOWER = UPPER_EDGE[1:-1], LOWER_EDGE[1:-1]

# To close the lips, each point is moved by a fraction of a gap between the inner lips. For each
# point: index of the gap (right, middle, left), and fraction of the gap in quarters, larger for
# the lower lip because the jaw moves more than the upper lip.
GAP_OF_POINT = (0, 0, 0, 1, 2, 2, 0, 2, 2, 1, 0, 0, 0, 0, 1, 2, 0, 2, 1, 0)
GAP_QUARTERS = (0, 1, 1, 1, 1, 1, 0, -3, -3, -3, -3, -3, 0, 1, 1, 1, 0, -3, -3, -3)
_SHUT, _OPEN = 0.03, 0.08
"""Largest gaps below which a reference counts as closed, and above which it counts as open."""
_RELIEF = 0.6
"""Fraction by which the overlap of pressed lips is reduced for references with an open mouth."""
_SIGMA = 0.14
_NORM_OFFSET = 0.05
_SOFT, _SHARP = 0.03, 0.012
_MIN_LENGTH = 0.02
"""Minimum distance between two points of an edge, about a pixel, for numerical stability."""


@dataclass
class LipWarp:
    """Warp of the mouth of a reference, and maps of the warp for the decoder.

    Attributes:
        flow: [N, 2, H, W].
        sides: the flows of the upper and of the lower lip [N, 4, H, W], between which `flow`
            changes at the centre line of the opening.
        maps: [N, NUM_LIP_MAPS, H, W]: depth of the position inside the mouth, depth of its source
            inside the reference's mouth, and ten times the flow.
        shown: [N, 1, H, W] in [0, 1], 1 where the reference shows its mouth interior.
    """

    flow: Tensor
    sides: Tensor
    maps: Tensor
    shown: Tensor


class LipWarper(nn.Module):
    """Predictor of the displaced lip landmarks of a reference.

    Paper: Nadaraya, "On estimating regression", 1964, for the interpolation.
    """

    _gap: Tensor
    _fraction: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Linear(dim + 2 * NUM_LIP_POINTS, 2 * NUM_LIP_POINTS)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)
        self.register_buffer("_gap", torch.tensor(GAP_OF_POINT), persistent=False)
        self.register_buffer("_fraction", torch.tensor(GAP_QUARTERS) / 4, persistent=False)

    def closed(self, lips: Tensor) -> Tensor:
        """Return lip points [N, 20, 2] of the same mouth when closed."""
        return self._narrowed(lips, lip_gaps(lips))

    def _narrowed(self, lips: Tensor, gaps: Tensor) -> Tensor:
        """Return lip points [N, 20, 2] with gaps that are smaller by [N, 3]."""
        return torch.stack([lips[..., 0], lips[..., 1] + gaps[:, self._gap] * self._fraction], -1)

    def forward(self, motion: Tensor, hidden: Tensor, lips: Tensor) -> Tensor:
        """Return the displaced lips [N, 20, 2].

        Args:
            motion: displacement [N, 20, 2] of closed lips by speech.
            hidden: features [N, D] of speech, reference and masked face.
            lips: the reference's lips [N or 1, 20, 2].
        """
        lips = lips.expand(hidden.shape[0], -1, -1)
        shift = self.shift(torch.cat([hidden, lips.flatten(1).to(hidden.dtype)], 1))
        spoken = self.closed(lips) + motion.to(lips.dtype)
        shifted = spoken + (MAX_SHIFT * torch.tanh(shift).unflatten(1, (-1, 2))).to(lips.dtype)
        gaps = _signed_gaps(spoken)
        # Pressed lips hide a part of each other: too much of those that must meet first.
        gaps = gaps - _RELIEF * openness(lips)[:, None] * gaps.clamp_max(0)
        return self._narrowed(shifted, _signed_gaps(shifted) - gaps)


def warp_lips(steps: Tensor, lips: Tensor, moved: Tensor) -> LipWarp:
    """Return the warp that moves the reference's lips.

    Args:
        steps: [S], coordinates of the positions on both axes.
        lips: the reference's lips [N or 1, 20, 2].
        moved: displaced lips [N, 20, 2].
    """
    lips = lips.expand(moved.shape[0], -1, -1)
    inside, below = _inside(steps[None, None], steps[None, :, None], moved)
    upper, lower = (_interpolate(steps, lips, moved, points) for points in (_UPPER, _LOWER))
    flow = torch.lerp(upper, lower, below[:, None])
    detached = flow.detach()  # No gradient flows through the maps.
    depth, _ = _depth(steps + detached[:, 0], steps[:, None] + detached[:, 1], lips)
    maps = torch.stack([inside, torch.sigmoid(depth / _SOFT)], 1)
    shown = torch.sigmoid((depth - 2 * _SHARP) / _SHARP)[:, None]
    sides = torch.cat([upper, lower], 1)
    return LipWarp(flow, sides, torch.cat([maps, 10 * detached], 1), shown)


def lip_gaps(lips: Tensor) -> Tensor:
    """Return the right, middle and left gaps [N, 3] between the inner lips of [N, 20, 2]."""
    return _signed_gaps(lips).clamp_min(0)


def openness(lips: Tensor) -> Tensor:
    """Return whether a mouth with lips [N, 20, 2] is open, [N] in [0, 1]."""
    return ((lip_gaps(lips).amax(1) - _SHUT) / (_OPEN - _SHUT)).clamp(0, 1)


def _signed_gaps(lips: Tensor) -> Tensor:
    return lips[:, _INNER_LOWER, 1] - lips[:, _INNER_UPPER, 1]


def inside_lips(x: Tensor, y: Tensor, lips: Tensor) -> Tensor:
    """Return a soft mask [N, 1, H, W] in [0, 1] of the opening between lips [N, 20, 2].

    `x` [W] and `y` [H] are the coordinates of the positions.
    """
    depth, _ = _depth(x[None, None], y[None, :, None], lips)
    return torch.sigmoid((depth - _SHARP) / _SHARP)[:, None]


def lip_density(x: Tensor, y: Tensor, lips: Tensor, sigma: float) -> Tensor:
    """Return the sum [N, 1, H, W] of Gaussians around lip points [N, 20, 2].

    `x` [W] and `y` [H] are the coordinates of the positions; `sigma` is in half widths.
    """
    across, down = (
        torch.exp((steps - lips[..., axis, None]).square() / (-2 * sigma**2))
        for axis, steps in enumerate((x, y))
    )
    return (down.mT @ across).to(lips.dtype)[:, None]


def _interpolate(steps: Tensor, lips: Tensor, moved: Tensor, points: Tensor) -> Tensor:
    """Interpolate the displacement [N, 2, S, S] from the displacements of some lip points."""
    position, path = moved[:, points, :, None], (lips - moved)[:, points]
    near = torch.exp((steps - position).square() / (-2 * _SIGMA**2))
    across, down = near[:, :, 0], near[:, :, 1].mT  # The Gaussian kernel is separable.
    total = (down @ across).to(moved.dtype) + _NORM_OFFSET
    sums = [((down * path[:, None, :, i]) @ across).to(moved.dtype) for i in (0, 1)]
    return torch.stack(sums, 1) / total[:, None]


def _inside(x: Tensor, y: Tensor, lips: Tensor) -> tuple[Tensor, Tensor]:
    """Return soft masks [N, H, W] of the mouth opening and of the region below its centre line.

    `x` is [N or 1, H or 1, W], `y` [N or 1, H, W or 1], and the lips are [N, 20, 2].
    """
    depth, below = _depth(x, y, lips)
    return torch.sigmoid(depth / _SOFT), torch.sigmoid(below / _SOFT)


def _depth(x: Tensor, y: Tensor, lips: Tensor) -> tuple[Tensor, Tensor]:
    """Return signed distances [N, H, W] into the mouth opening and below its centre line."""
    top, bottom = lip_edge(x[:, None], lips[:, _EDGES]).unbind(1)
    right, left = lips[:, 12, 0, None, None], lips[:, 16, 0, None, None]
    depth = torch.minimum(torch.minimum(y - top, bottom - y), torch.minimum(x - right, left - x))
    return depth, y - (top + bottom) / 2


def lip_edge(x: Tensor, points: Tensor) -> Tensor:
    """Return the y coordinate [..., H, W] at x of lip edges, monotone cubic splines.

    An edge is rounded at the corners and level beyond them.

    Args:
        x: [..., H, W].
        points: [..., 5, 2], from corner to corner, left to right.

    Paper: Fritsch & Butland, "A method for constructing local monotone piecewise cubic
        interpolants", 1984.
    """
    position, height = points[..., None, None, :, :].unbind(-1)
    length, rise = position.diff(dim=-1).clamp_min(_MIN_LENGTH), height.diff(dim=-1)
    slope = rise / length
    before, after = slope[..., :-1], slope[..., 1:]
    steep = before.abs() + after.abs() + 1e-6
    inner = 2 * (before * after).clamp_min(0) / steep * before.sign()
    slopes = torch.cat([3 * slope[..., :1], inner, 3 * slope[..., -1:]], -1)
    s = ((x[..., None] - position[..., :-1]) / length).clamp(0, 1)
    bend = (slopes[..., :-1] * (1 - s) - slopes[..., 1:] * s) * length
    return height[..., 0] + (s * s * (3 - 2 * s) * rise + s * (1 - s) * bend).sum(-1)
