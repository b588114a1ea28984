"""The lip landmark regressor."""

from __future__ import annotations

import torch

from talkinghead.models.lip_regressor import LipRegressor


def test_points_are_fractions_of_the_image() -> None:
    torch.manual_seed(0)
    points = LipRegressor((8, 8, 16))(torch.rand(3, 3, 96, 96))
    assert points.shape == (3, 20, 2)
    assert points.min() > 0
    assert points.max() < 1


def test_points_move_with_the_image() -> None:
    torch.manual_seed(0)
    model = LipRegressor((8, 8, 16))
    # Sharper heat maps respond to the white square.
    with torch.no_grad():
        model.heat.weight.mul_(20)
    image = torch.zeros(1, 3, 96, 96)
    image[..., 40:48, 32:40] = 1
    moved = image.roll((8, 16), dims=(2, 3))
    shift = (model(moved) - model(image))[0]
    follows = (shift - torch.tensor([16 / 96, 8 / 96])).abs().amax(1) < 0.03
    assert follows.any()


def test_gradients_reach_the_image() -> None:
    image = torch.rand(1, 3, 96, 96, requires_grad=True)
    LipRegressor((8, 8, 16))(image)[0, 0, 0].backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
