"""Warp of an image by the flows of both lips, which meet at the centre line of the mouth.

A single flow, interpolated between the lips, takes its values between closed lips from the open
mouth of the reference: a line of teeth would be left.

Coordinates are those of `lip_warp.py`.

Shape suffixes: N frames, C channels, S positions per axis, H and W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from talkinghead.models.lipsync.lip_warp import LOWER_EDGE, UPPER_EDGE, lip_edge
from talkinghead.models.lipsync.mouth_painting import at_least_float32, grid_steps

_EDGES = torch.stack([UPPER_EDGE, LOWER_EDGE])
SEAM_SOFTNESS, MIN_SOFTNESS, MAX_SOFTNESS = 0.3, 1e-4, 0.03
"""Half width of the change between the flows: relative to half of the gap, and limits. It also
increases beyond the corners, where the skin is continuous."""
_SEAM_PLACES = 0.25, 0.65, 0.2, 0.8
"""First and last row and column, as fractions of the image, at which the seam is smoothed."""
_CLOSED_GAP, _EDGE_MARGIN = 0.02, 0.02
"""Half of the gap below which lips count as closed; distance of their sources from the reference's
opening, since landmarks are not exact."""


def close_sides(steps: Tensor, sides: Tensor, lips: Tensor, moved: Tensor) -> Tensor:
    """Return flows that keep out of the reference's opening where the lips are closed.

    Args:
        steps: [S], coordinates of the positions on both axes.
        sides: the flows of the upper and of the lower lip [N, 4, S, S].
        lips: the reference's lips [N or 1, 20, 2].
        moved: displaced lips [N, 20, 2].
    """
    flows = sides.unflatten(1, (2, 2))
    x, y = steps + flows[:, :, 0], steps[:, None] + flows[:, :, 1]
    direction = torch.tensor([-1.0, 1.0], device=steps.device)[:, None, None]
    places = steps[None, None], steps[None, :, None]
    _, half_gap, outside = centre_line(*places, moved)
    is_closed = torch.exp(-((half_gap + outside) / _CLOSED_GAP).square())[:, None]
    open_gap = centre_line(*places, lips)[1][:, None]
    margin = is_closed * open_gap.clamp(max=_EDGE_MARGIN)
    edge = lip_edge(x, lips[:, _EDGES]) + direction * margin
    inside = (direction * (edge - y)).clamp_min(0).minimum(2 * open_gap + margin)
    y = flows[:, :, 1] + direction * is_closed * inside
    return torch.stack([flows[:, :, 0], y], 2).flatten(1, 2).to(sides.dtype)


def warp_sides(image: Tensor, sides: Tensor, lips: Tensor) -> Tensor:
    """Warp an image [N or 1, C, S, S] by the flow of the upper lip or by that of the lower lip.

    Between open lips the flow changes gradually. Between closed ones it jumps, and the row at a
    jump of several pixels is a mix of its neighbours.

    Args:
        image: [N or 1, C, S, S].
        sides: the flows of both lips [N, 4, H, W] in half widths of the image.
        lips: the displaced lips [N, 20, 2].
    """
    size = image.shape[-1]
    steps, pixel = grid_steps(size, lips.device), 2 / size
    upper, lower = F.interpolate(sides, (size, size), mode="bilinear").chunk(2, 1)
    below, half_gap, outside = centre_line(steps[None, None], steps[None, :, None], lips)
    softness = SEAM_SOFTNESS * half_gap + outside
    is_lower = torch.sigmoid(below / softness.clamp(MIN_SOFTNESS, MAX_SOFTNESS))[:, None]
    warped = warp(image, torch.lerp(upper, lower, is_lower.to(upper.dtype)))
    distance = below.square() + (half_gap + outside).square()
    return _smooth_seam(warped, distance / pixel**2, (lower - upper)[:, 1:] / pixel)


def _smooth_seam(image: Tensor, distance: Tensor, jump: Tensor) -> Tensor:
    """Mix the pixels at a seam with those above and below, where sources jump by several pixels.

    Args:
        image: [N, C, S, S].
        distance: squared distance from closed lips in pixels [N, S, S].
        jump: vertical distance of the sources of the two sides in pixels [N, 1, S, S].
    """
    size = image.shape[-1]
    first, last, left, right = (int(place * size) for place in _SEAM_PLACES)
    part = slice(first, last), slice(left, right)
    seam = torch.exp(-distance[:, None, *part]) * (jump[..., *part].abs() - 1).clamp(0, 1)
    near = image[..., first - 1 : last + 1, left:right]
    change = seam.to(image.dtype) * (
        (near[..., :-2, :] + near[..., 2:, :]) / 2 - near[..., 1:-1, :]
    )
    return image + F.pad(change, (left, size - right, first, size - last))


def centre_line(x: Tensor, y: Tensor, lips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances of positions from the line between the lips.

    Args:
        x: [N or 1, H or 1, W].
        y: [N or 1, H, W or 1].
        lips: [N, 20, 2].

    Returns:
        Distance [N, H, W] below the line, half of the gap between the lips [N, H or 1, W], and
        distance [N, H or 1, W] beyond the corners.
    """
    top, bottom = lip_edge(x[:, None], lips[:, _EDGES]).unbind(1)
    right, left = lips[:, 12, 0, None, None], lips[:, 16, 0, None, None]
    outside = torch.maximum(right - x, x - left).clamp_min(0)
    return y - (top + bottom) / 2, ((bottom - top) / 2).clamp_min(0), outside


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Warp an image [N or 1, C, H, W] by a flow [N, 2, h, w] in half widths of the image."""
    size = image.shape[-1]
    if flow.shape[-1] != size:
        flow = F.interpolate(flow, (size, size), mode="bilinear")
    grid = identity_grid(size, flow.device) + at_least_float32(flow).permute(0, 2, 3, 1)
    image = image.expand(grid.shape[0], -1, -1, -1)
    return F.grid_sample(image, grid.to(image.dtype), align_corners=False, padding_mode="border")


def identity_grid(size: int, device: torch.device) -> Tensor:
    """Return the identity sampling grid [1, size, size, 2] in [-1, 1]."""
    steps = grid_steps(size, device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1).unsqueeze(0)
