"""The warp by the flows of both lips: what is left of an open mouth between closed lips."""

from __future__ import annotations

import pytest
import torch
from test_generator import closed_lips
from test_lip_warp import STEPS, half_widths, opened

from talkinghead.models.lipsync.lip_seam import close_sides, warp_sides
from talkinghead.models.lipsync.lip_warp import inside_lips, lip_gaps, warp_lips
from talkinghead.models.lipsync.mouth_painting import grid_steps

LIPS = half_widths(closed_lips())
SKIN, TEETH = 0.3, 1.0


def mouth_with_teeth(gap: float, size: int) -> torch.Tensor:
    """Return a mouth [1, 1, size, size] whose teeth extend a pixel beyond its landmarks."""
    steps = grid_steps(size, torch.device("cpu"))
    teeth = opened(LIPS, gap + 2 / size)
    teeth[..., 1] -= 1 / size
    is_inside = inside_lips(steps, steps, teeth) > 0.3
    return torch.where(is_inside, TEETH, SKIN)


def warped(reference: torch.Tensor, moved: torch.Tensor, size: int) -> torch.Tensor:
    """Return the mouth of a reference [1, 1, size, size] that is moved from and to some lips."""
    sides = close_sides(STEPS, warp_lips(STEPS, reference, moved).sides, reference, moved)
    gap = float(lip_gaps(reference)[0, 1])
    return warp_sides(mouth_with_teeth(gap, size), sides, moved)


@pytest.mark.parametrize("size", [96, 192])
@pytest.mark.parametrize("gap", [0.1, 0.25])
def test_closed_lips_show_nothing_of_an_open_mouth(gap: float, size: int) -> None:
    assert (mouth_with_teeth(gap, size) == TEETH).sum() > 50
    shut = warped(opened(LIPS, gap), LIPS, size)
    assert shut.max() < SKIN + 0.05


def test_visible_mouth_grows_with_the_gap() -> None:
    reference, size = opened(LIPS, 0.25), 192
    gaps = torch.linspace(0, 0.3, 7)
    shown = torch.tensor(
        [
            (warped(reference, opened(LIPS, float(g)), size)[0, 0, :, size // 2] > 0.6).sum()
            for g in gaps
        ]
    )
    assert (shown.diff() > 0).all()
    heights = shown[3:] * 2 / size
    torch.testing.assert_close(heights, gaps[3:], atol=0.04, rtol=0)


def test_skin_beyond_the_corners_is_continuous() -> None:
    size = 192
    steps = grid_steps(size, torch.device("cpu"))
    reference = opened(LIPS, 0.25)
    sides = close_sides(STEPS, warp_lips(STEPS, reference, LIPS).sides, reference, LIPS)
    ramp = steps[None, None, :, None].expand(1, 1, size, size)
    rows = warp_sides(ramp, sides, LIPS)[0, 0]
    corner = float(LIPS[0, 16, 0])
    beyond = (steps > corner + 0.05) & (steps < 0.8)
    assert rows[:, beyond].diff(dim=0).abs().max() < 3 * 2 / size
