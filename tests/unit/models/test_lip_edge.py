"""The shape that five points give a lip's edge."""

import torch

from talkinghead.models.lip_warp import lip_edge


def test_an_edge_goes_through_its_points_is_level_beyond_and_round_at_its_corners():
    points = torch.tensor([[[-0.4, 0.0], [-0.2, 0.1], [0.0, 0.12], [0.2, 0.1], [0.4, 0.0]]])
    at = lambda *x: lip_edge(torch.tensor(x)[None, None], points)[0, 0]  # noqa: E731
    torch.testing.assert_close(at(-0.4, -0.2, 0.0, 0.2, 0.4), points[0, :, 1])
    torch.testing.assert_close(at(-0.9, 0.9), torch.zeros(2))
    torch.testing.assert_close(at(-0.1), torch.tensor([0.11]))
    left, right = at(-0.3, 0.3)
    assert left > 0.08  # A straight line is at 0.05 there.
    torch.testing.assert_close(left, right)
