"""The warp by lip landmarks, and where the drawn mouth interior replaces it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_generator import TINY, closed_lips

from talkinghead.models.lipsync.decoder import MAX_FLOW
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.models.lipsync.lip_seam import warp
from talkinghead.models.lipsync.lip_warp import LipWarper, lip_edge, lip_gaps, warp_lips
from talkinghead.models.lipsync.mouth_painting import grid_steps

STEPS, PIXELS = (grid_steps(size, torch.device("cpu")) for size in (48, 96))


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
    weight = image[0, 0] / image.sum()
    return torch.stack([(weight.sum(0) * PIXELS).sum(), (weight.sum(1) * PIXELS).sum()])


@pytest.mark.parametrize("gap", [0.0, 0.15])
def test_lips_are_as_far_apart_as_their_motion_says(gap: float) -> None:
    torch.manual_seed(0)
    warper, lips = LipWarper(8), half_widths(closed_lips())
    torch.nn.init.normal_(warper.shift.weight)
    motion = opened(lips, gap) - lips
    moved = warper(motion, torch.randn(1, 8), opened(lips, 0.1))
    assert (moved - warper.closed(opened(lips, 0.1)) - motion).abs().max() > 0.05
    torch.testing.assert_close(lip_gaps(moved), lip_gaps(lips + motion), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("reference_gap", "expected"), [(0.0, -0.1), (0.2, -0.04)])
def test_lips_of_an_open_reference_are_pressed_less(reference_gap: float, expected: float) -> None:
    lips = half_widths(closed_lips())
    motion = torch.zeros(1, 20, 2)
    motion[:, 17:20, 1] = -0.1
    moved = LipWarper(8)(motion, torch.zeros(1, 8), opened(lips, reference_gap))
    gaps = moved[0, [19, 18, 17], 1] - moved[0, 13:16, 1]
    assert gaps.tolist() == pytest.approx([expected] * 3, abs=1e-5)


@pytest.mark.parametrize("index", [3, 9])
def test_warp_moves_skin_with_the_lips(index: int) -> None:
    lips = half_widths(closed_lips())
    moved = opened(lips, 0.2)
    x, y = lips[0, index]
    spot = torch.exp(((PIXELS - x)[None] ** 2 + (PIXELS - y)[:, None] ** 2) / -0.001)[None, None]
    shown = warp(spot, warp_lips(STEPS, lips, moved).flow)
    assert (centroid(shown) - moved[0, index]).abs().max() < 0.04


def test_interior_map_covers_only_the_gap_between_open_lips() -> None:
    lips = half_widths(closed_lips())
    shut, wide = (warp_lips(STEPS, lips, opened(lips, gap)).maps[0] for gap in (0.0, 0.3))
    row, column = 22, 24  # Between the lips, in the middle.
    assert wide[0, row, column] > 0.9
    assert shut[0].max() < 0.6
    assert wide[0, 14, column] < 0.05
    assert wide[1].max() < 0.6  # The reference's lips are closed.


EDGE = [[-0.4, 0.0], [-0.2, 0.1], [0.0, 0.12], [0.2, 0.1], [0.4, 0.0]]


def heights(x: Any, points: list[list[float]]) -> torch.Tensor:
    return lip_edge(torch.as_tensor(x)[None, None], torch.tensor([points]))[0, 0]


def test_edge_passes_through_its_points_and_is_level_beyond_the_corners() -> None:
    positions, expected = torch.tensor(EDGE).unbind(1)
    torch.testing.assert_close(heights(positions, EDGE), expected)
    torch.testing.assert_close(heights([-0.9, 0.9], EDGE), torch.zeros(2))
    left, right = heights([-0.3, 0.3], EDGE)
    assert left > 0.08  # A straight line would be at 0.05.
    torch.testing.assert_close(left, right)


def test_edge_is_smooth_and_monotone_on_each_side() -> None:
    points = [[-0.23, -0.16], [-0.09, -0.05], [-0.01, -0.03], [0.09, -0.06], [0.4, -0.16]]
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


SIZE = 96
MIDDLE = SIZE // 2


def row_of(y: torch.Tensor) -> int:
    return int((PIXELS - y).abs().argmin())


@torch.inference_mode()
def shown_between(reference_lips: torch.Tensor, paint: float | None = None) -> torch.Tensor:
    """Return the middle column of the mouth that an untrained generator opens.

    Args:
        reference_lips: the reference's lips.
        paint: a constant logit of the painted colour; None paints nothing.
    """
    generator = LipSyncGenerator(**TINY).eval()
    if paint is not None:
        generator.decoder.head.bias[2:14] = paint
        generator.decoder.head.bias[14:] = 20.0  # The channels of the mask.
    reference = generator.encode_reference(torch.full((1, 3, 256, 256), 0.6), reference_lips)
    context = generator.encode_context(torch.zeros(1, 3, 128, 128), reference)
    far = half_widths(opened(closed_lips(), 24)) - half_widths(closed_lips())
    tokens = torch.zeros_like(reference.token)
    output = generator.decoder(tokens, far, reference, context)
    return output.mouth[0, :, :, MIDDLE + 3].mean(0)


def test_interior_is_drawn_only_if_the_reference_shows_none() -> None:
    rows = slice(row_of(half_widths(closed_lips())[0, 14, 1]) + 8, None)
    shut, slit, wide = (shown_between(opened(closed_lips(), gap))[rows][:4] for gap in (0, 4, 24))
    assert shut.max() < 0.35
    assert torch.allclose(slit, shut, atol=0.05)  # A narrow gap is not stretched.
    assert wide.min() > 0.5


def test_rgb_output_has_low_weight_between_the_lips() -> None:
    lips = opened(closed_lips(), 24)
    line = row_of(half_widths(lips)[0, 14, 1])
    painted = torch.logit(shown_between(lips, paint=2.0)) - math.log(0.6 / 0.4)
    assert torch.allclose(painted[line + 8 : line + 12], torch.tensor(0.4), atol=0.1)
    assert painted[line - 12] > 1.5


@torch.inference_mode()
def test_hair_beside_the_face_does_not_darken_the_interior() -> None:
    painting = LipSyncGenerator(**TINY).decoder.painting
    face = torch.full((1, 3, SIZE, SIZE), 0.6)
    shaded = face.clone()
    shaded[..., :, :12], shaded[..., 70:, :] = 0.05, 0.1  # Hair at one side, and clothes below.
    assert torch.allclose(painting._skin_colour(shaded), painting._skin_colour(face), atol=0.01)


@torch.inference_mode()
def test_residual_flow_is_reduced_on_the_lips() -> None:
    generator = LipSyncGenerator(**TINY).eval()
    generator.decoder.head.bias[1] = 0.5
    reference = generator.encode_reference(torch.full((1, 3, 256, 256), 0.6), closed_lips())
    context = generator.encode_context(torch.zeros(1, 3, 128, 128), reference)
    tokens, still = torch.zeros_like(reference.token), torch.zeros(1, 20, 2)
    residual = generator.decoder(tokens, still, reference, context).residual[0, 1]
    mouth = half_widths(closed_lips())[0, 14]
    column, row = ((STEPS - position).abs().argmin() for position in mouth)
    assert residual[row, column] < 0.7 * residual[-4, column]
    assert residual[-4, column] == pytest.approx(MAX_FLOW * math.tanh(0.5), rel=0.05)


@torch.inference_mode()
def test_face_of_twice_the_size_gives_a_mouth_of_twice_the_size() -> None:
    generator = LipSyncGenerator(**TINY).eval()
    large = torch.full((1, 3, 512, 512), 0.6)
    large[..., 300:460:8, :] = 0.2  # Lines that are not visible at half the size.
    far = half_widths(opened(closed_lips(), 24)) - half_widths(closed_lips())
    outputs = []
    for face in (large, torch.nn.functional.avg_pool2d(large, 2)):
        reference = generator.encode_reference(face, closed_lips())
        context = generator.encode_context(torch.zeros(1, 3, 128, 128), reference)
        outputs.append(
            generator.decoder(torch.zeros_like(reference.token), far, reference, context)
        )
    double, single = outputs
    assert double.mouth.shape == double.rgb.shape == (1, 3, 2 * SIZE, 2 * SIZE)
    assert torch.equal(double.flow, single.flow)
    halved = torch.nn.functional.avg_pool2d(double.mouth, 2)
    assert (halved - single.mouth).abs().mean() < 0.02
    assert double.warped.std(2).mean() > 1.5 * single.warped.std(2).mean()
