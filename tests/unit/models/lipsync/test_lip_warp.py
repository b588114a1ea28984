"""The lips' own warp: it takes the reference's lips to where they go, and opens between them."""

from __future__ import annotations

import pytest
import torch
from test_generator import closed_lips

from talkinghead.models.lipsync.decoder import grid_steps, warp
from talkinghead.models.lipsync.lip_warp import LipWarper, warp_lips

STEPS = grid_steps(48, torch.device("cpu"))


def half_widths(lips: torch.Tensor) -> torch.Tensor:
    """Canonical pixels to the box's."""
    return (lips - torch.tensor([128.0, 184.0])) / 72


def opened(lips: torch.Tensor, gap: float) -> torch.Tensor:
    """The lower lip lowered by a gap, half of it beside the middle."""
    moved = lips.clone()
    for index in (7, 8, 9, 10, 11, 17, 18, 19):
        moved[:, index, 1] += gap if index in (8, 9, 10, 18) else gap / 2
    return moved


def place(picture: torch.Tensor) -> torch.Tensor:
    """The mean place (x, y) of what is bright in [1, 1, 96, 96], half widths."""
    steps = grid_steps(96, picture.device)
    share = picture[0, 0] / picture.sum()
    return torch.stack([(share.sum(0) * steps).sum(), (share.sum(1) * steps).sum()])


@pytest.mark.parametrize("index", [3, 9])
def test_skin_goes_where_its_lip_goes(index: int) -> None:
    lips = half_widths(closed_lips())
    moved = opened(lips, 0.2)
    steps = grid_steps(96, torch.device("cpu"))
    x, y = lips[0, index]
    spot = torch.exp(((steps - x)[None] ** 2 + (steps - y)[:, None] ** 2) / -0.001)[None, None]
    shown = warp(spot, warp_lips(STEPS, lips, moved).flow)
    assert (place(shown) - moved[0, index]).abs().max() < 0.04


def test_it_is_between_opened_lips_alone_that_there_is_an_inside() -> None:
    lips = half_widths(closed_lips())
    shut, wide = (warp_lips(STEPS, lips, opened(lips, gap)).maps[0] for gap in (0.0, 0.3))
    row, column = 22, 24  # Between the lips, in the middle.
    assert wide[0, row, column] > 0.9
    assert shut[0].max() < 0.6
    assert wide[0, 14, column] < 0.05
    assert wide[1].max() < 0.6  # What is warped there is closed lips' skin.


def test_closing_takes_the_gap_away_and_leaves_the_corners() -> None:
    lips = half_widths(closed_lips())
    closed = LipWarper(8).closed(opened(lips, 0.2))
    assert torch.allclose(closed[:, [13, 14, 15], 1], closed[:, [19, 18, 17], 1], atol=1e-6)
    corners = [0, 6, 12, 16]
    assert torch.equal(closed[:, corners], lips[:, corners])


def test_nothing_moves_where_speech_moves_nothing() -> None:
    lips = half_widths(closed_lips())
    points = LipWarper(8)(torch.zeros(3, 20, 2), torch.randn(3, 8), lips)
    assert torch.allclose(points, lips.expand(3, -1, -1), atol=1e-6)
    assert warp_lips(STEPS, lips, points).flow.abs().max() < 1e-6
