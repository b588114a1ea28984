"""The drawn mouth interior: teeth, tongue and cavity."""

from __future__ import annotations

import torch
from test_generator import closed_lips
from test_lip_warp import half_widths, opened

from talkinghead.models.lipsync.mouth_interior import draw_mouth_interior
from talkinghead.models.lipsync.mouth_painting import _interior_weight, grid_steps

SIZE = 96
PIXELS = grid_steps(SIZE, torch.device("cpu"))
NEXT_TO_THE_MIDDLE = SIZE // 2 + 4  # Beside the gap between the incisors.


def column_of(gap: float, colour: tuple[float, ...] = (0.8, 0.6, 0.5)) -> torch.Tensor:
    """Return the middle column [3, S] of the interior of a mouth opened by `gap` pixels."""
    skin = torch.tensor(colour)[None, :, None, None]
    closed, moved = half_widths(closed_lips()), half_widths(opened(closed_lips(), gap))
    image = draw_mouth_interior(PIXELS, PIXELS, closed, moved, skin)
    return image[0, :, :, NEXT_TO_THE_MIDDLE]


def row_of(y: torch.Tensor) -> int:
    return int((PIXELS - y).abs().argmin())


LINE = row_of(half_widths(closed_lips())[0, 14, 1])


def test_upper_teeth_end_just_below_the_closed_lips() -> None:
    column = column_of(0).mean(0)
    assert column[LINE] > 0.4
    below = (column < 0.3).nonzero().flatten()
    assert LINE < int(below[0]) <= LINE + 7
    assert column[int(below[0]) :].max() < 0.3


def test_tongue_and_lower_teeth_appear_above_the_lower_lip_of_a_wide_mouth() -> None:
    column = column_of(24)
    lip = row_of(half_widths(opened(closed_lips(), 24))[0, 18, 1])
    teeth, tongue, cavity = column[:, lip - 1], column[:, lip - 5], column[:, LINE + 9]
    assert teeth.mean() > tongue.mean() > cavity.mean()
    assert (tongue[0] - tongue[2]) / tongue.mean() > (teeth[0] - teeth[2]) / teeth.mean()
    narrow = column_of(4)[:, LINE + 8 :].mean(0)
    assert narrow.max() < 0.3


def test_cavity_is_a_dark_red_as_in_videos_of_people() -> None:
    # The measurement is described at `_CAVITY`.
    brightness = 0.6
    column = column_of(24, (0.8, 0.6, 0.4)) / brightness
    cavity = column[:, int(column[0].argmin())]
    assert 0.2 < cavity[0] < 0.58
    assert 0.04 < cavity[2] < cavity[1] < cavity[0] / 2


def test_interior_follows_the_brightness_of_the_face() -> None:
    bright, dark = column_of(24), column_of(24, (0.4, 0.3, 0.25))
    assert torch.allclose(dark, bright / 2, atol=0.02)


def test_teeth_of_the_reference_are_enlarged_more_than_a_dark_interior() -> None:
    reference, moved = (half_widths(opened(closed_lips(), gap)) for gap in (6, 12))
    dark, teeth = (_interior_weight(reference, moved, torch.full((1, 1, 1, 1), t)) for t in (0, 1))
    assert dark.item() == 0
    assert 0.5 < teeth.item() < 1
    assert _interior_weight(reference, reference, torch.zeros(1, 1, 1, 1)).item() == 1
