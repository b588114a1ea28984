"""The lip regressor: its points are in the picture and move with it."""

from __future__ import annotations

import torch

from talkinghead.models.lip_regressor import LipRegressor


def test_points_are_fractions_of_the_picture() -> None:
    torch.manual_seed(0)
    points = LipRegressor((8, 8, 16))(torch.rand(3, 3, 96, 96))
    assert points.shape == (3, 20, 2)
    assert points.min() > 0
    assert points.max() < 1


def test_points_move_with_the_picture() -> None:
    torch.manual_seed(0)
    model = LipRegressor((8, 8, 16))
    # One point's heat map fires on white, and the picture is a white spot on black.
    with torch.no_grad():
        model.heat.weight.mul_(20)
    picture = torch.zeros(1, 3, 96, 96)
    picture[..., 40:48, 32:40] = 1
    moved = picture.roll((8, 16), dims=(2, 3))
    shift = (model(moved) - model(picture))[0]
    follows = (shift - torch.tensor([16 / 96, 8 / 96])).abs().amax(1) < 0.03
    assert follows.any()


def test_a_gradient_reaches_the_picture() -> None:
    picture = torch.rand(1, 3, 96, 96, requires_grad=True)
    LipRegressor((8, 8, 16))(picture)[0, 0, 0].backward()
    assert picture.grad is not None
    assert picture.grad.abs().max() > 0
