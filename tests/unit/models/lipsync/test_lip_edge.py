"""The shape that five points give a lip's edge."""

import pytest
import torch

from talkinghead.models.lipsync.lip_warp import lip_edge

EDGE = [[-0.4, 0.0], [-0.2, 0.1], [0.0, 0.12], [0.2, 0.1], [0.4, 0.0]]
CROOKED = [[-0.23, -0.16], [-0.09, -0.05], [-0.01, -0.03], [0.09, -0.06], [0.4, -0.16]]


def heights(x, points):
    return lip_edge(torch.as_tensor(x)[None, None], torch.tensor([points]))[0, 0]


def test_an_edge_goes_through_its_points_is_level_beyond_and_round_at_its_corners():
    places, expected = torch.tensor(EDGE).unbind(1)
    torch.testing.assert_close(heights(places, EDGE), expected)
    torch.testing.assert_close(heights([-0.9, 0.9], EDGE), torch.zeros(2))
    left, right = heights([-0.3, 0.3], EDGE)
    assert left > 0.08  # A straight line is at 0.05 there.
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("points", [EDGE, CROOKED])
def test_between_its_corners_an_edge_has_no_kink_and_no_wave(points):
    x = torch.linspace(points[0][0] + 0.02, points[-1][0] - 0.02, 2001)
    slope = heights(x, points).diff() / x.diff()
    assert slope.diff().abs().max() < 0.02  # Straight from point to point: over 0.1.
    assert (slope[x[1:] < points[2][0]] > -1e-3).all()
    assert (slope[x[:-1] > points[2][0]] < 1e-3).all()


def test_a_level_edge_and_points_in_one_place_have_gradients():
    points = torch.tensor([[[-0.4, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.4, 0.0]]])
    points.requires_grad_()
    lip_edge(torch.linspace(-1, 1, 9)[None, None], points).sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()
