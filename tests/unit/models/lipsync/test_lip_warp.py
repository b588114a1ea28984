"""The warp by lip landmarks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_generator import closed_lips

from talkinghead.models.lipsync.decoder import grid_steps, warp
from talkinghead.models.lipsync.lip_warp import LipWarper, lip_edge, warp_lips

STEPS = grid_steps(48, torch.device("cpu"))


def half_widths(lips: torch.Tensor) -> torch.Tensor:
    """Convert canonical pixels to the box's coordinates."""
    return (lips - torch.tensor([128.0, 184.0])) / 72


def opened(lips: torch.Tensor, gap: float) -> torch.Tensor:
    """Lower the lower lip by a gap, and by half of it near the corners."""
    moved = lips.clone()
    for index in (7, 8, 9, 10, 11, 17, 18, 19):
        moved[:, index, 1] += gap if index in (8, 9, 10, 18) else gap / 2
    return moved


def centroid(image: torch.Tensor) -> torch.Tensor:
    """Return the centroid (x, y) of an image [1, 1, 96, 96], in half widths."""
    steps = grid_steps(96, image.device)
    weight = image[0, 0] / image.sum()
    return torch.stack([(weight.sum(0) * steps).sum(), (weight.sum(1) * steps).sum()])


@pytest.mark.parametrize("index", [3, 9])
def test_skin_follows_its_lip(index: int) -> None:
    lips = half_widths(closed_lips())
    moved = opened(lips, 0.2)
    steps = grid_steps(96, torch.device("cpu"))
    x, y = lips[0, index]
    spot = torch.exp(((steps - x)[None] ** 2 + (steps - y)[:, None] ** 2) / -0.001)[None, None]
    shown = warp(spot, warp_lips(STEPS, lips, moved).flow)
    assert (centroid(shown) - moved[0, index]).abs().max() < 0.04


def test_interior_map_covers_only_the_gap_between_open_lips() -> None:
    lips = half_widths(closed_lips())
    shut, wide = (warp_lips(STEPS, lips, opened(lips, gap)).maps[0] for gap in (0.0, 0.3))
    row, column = 22, 24  # Between the lips, in the middle.
    assert wide[0, row, column] > 0.9
    assert shut[0].max() < 0.6
    assert wide[0, 14, column] < 0.05
    assert wide[1].max() < 0.6  # What is warped there is closed lips' skin.


def test_closing_removes_the_gap_and_keeps_the_corners() -> None:
    lips = half_widths(closed_lips())
    closed = LipWarper(8).closed(opened(lips, 0.2))
    assert torch.allclose(closed[:, [13, 14, 15], 1], closed[:, [19, 18, 17], 1], atol=1e-6)
    corners = [0, 6, 12, 16]
    assert torch.equal(closed[:, corners], lips[:, corners])


def test_zero_motion_gives_zero_flow() -> None:
    lips = half_widths(closed_lips())
    points = LipWarper(8)(torch.zeros(3, 20, 2), torch.randn(3, 8), lips)
    assert torch.allclose(points, lips.expand(3, -1, -1), atol=1e-6)
    assert warp_lips(STEPS, lips, points).flow.abs().max() < 1e-6


EDGE = [[-0.4, 0.0], [-0.2, 0.1], [0.0, 0.12], [0.2, 0.1], [0.4, 0.0]]
CROOKED = [[-0.23, -0.16], [-0.09, -0.05], [-0.01, -0.03], [0.09, -0.06], [0.4, -0.16]]


def heights(x: Any, points: list[list[float]]) -> torch.Tensor:
    return lip_edge(torch.as_tensor(x)[None, None], torch.tensor([points]))[0, 0]


def test_edge_passes_through_its_points_and_is_level_beyond_the_corners() -> None:
    positions, expected = torch.tensor(EDGE).unbind(1)
    torch.testing.assert_close(heights(positions, EDGE), expected)
    torch.testing.assert_close(heights([-0.9, 0.9], EDGE), torch.zeros(2))
    left, right = heights([-0.3, 0.3], EDGE)
    assert left > 0.08  # A straight line would be at 0.05.
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("points", [EDGE, CROOKED])
def test_edge_is_smooth_and_monotone_on_each_side(points: list[list[float]]) -> None:
    x = torch.linspace(points[0][0] + 0.02, points[-1][0] - 0.02, 2001)
    slope = heights(x, points).diff() / x.diff()
    assert slope.diff().abs().max() < 0.02  # A polyline has kinks above 0.1.
    assert (slope[x[1:] < points[2][0]] > -1e-3).all()
    assert (slope[x[:-1] > points[2][0]] < 1e-3).all()


def test_degenerate_edges_have_finite_gradients() -> None:
    points = torch.tensor([[[-0.4, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.4, 0.0]]])
    points.requires_grad_()
    lip_edge(torch.linspace(-1, 1, 9)[None, None], points).sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()
