"""The drawn mouth interior."""

from __future__ import annotations

import math

import torch
from test_generator import TINY, closed_lips
from test_lip_warp import half_widths, opened

from talkinghead.models.lipsync.decoder import grid_steps, lip_mask_prior
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.models.lipsync.mouth_interior import mouth_interior

SIZE = 96
STEPS = grid_steps(SIZE, torch.device("cpu"))
MIDDLE = SIZE // 2


def drawn(lips: torch.Tensor, colour: tuple[float, ...] = (0.8, 0.6, 0.5)) -> torch.Tensor:
    """Draw the interior [3, S, S] of a mouth in a face of one colour."""
    face = torch.tensor(colour)[None, :, None, None].expand(1, 3, SIZE, SIZE)
    return mouth_interior(STEPS, lips, face, lip_mask_prior(SIZE))[0]


def row_of(y: torch.Tensor) -> int:
    return int((STEPS - y).abs().argmin())


def test_upper_teeth_end_just_below_the_closed_lips() -> None:
    lips = half_widths(closed_lips())
    line = row_of(lips[0, 14, 1])
    column = drawn(lips)[:, :, MIDDLE + 3].mean(0)  # Next to the gap between the incisors.
    assert column[line] > 0.6
    below = (column < 0.3).nonzero().flatten()
    assert line < int(below[0]) <= line + 6
    assert column[int(below[0]) :].max() < 0.3


def test_teeth_are_whiter_than_the_face_and_scale_with_its_brightness() -> None:
    lips = half_widths(closed_lips())
    line = row_of(lips[0, 14, 1])
    bright, dim = (
        drawn(lips, colour)[:, line, MIDDLE + 3] for colour in ((0.8, 0.6, 0.5), (0.4, 0.3, 0.25))
    )
    assert torch.allclose(dim, bright / 2, atol=1e-3)
    assert bright[0] / bright[2] < 1.3 < 0.8 / 0.5


def test_interior_moves_with_the_head_and_stays_in_range() -> None:
    lips = half_widths(closed_lips())
    moved = drawn(lips + 2 * 4 / SIZE)
    assert torch.allclose(moved[:, 4:, 4:], drawn(lips)[:, :-4, :-4], atol=1e-3)
    for colour in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
        assert 0 < drawn(lips, colour).min() <= drawn(lips, colour).max() < 1
    assert drawn(torch.zeros(1, 20, 2)).isfinite().all()  # Lips seen in profile have no width.


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
        generator.decoder.head.bias[14:] = 20.0  # The mask.
    reference = generator.encode_reference(torch.full((1, 3, 256, 256), 0.6), reference_lips)
    context = generator.encode_context(torch.zeros(1, 3, 128, 128), reference)
    far = half_widths(opened(closed_lips(), 24)) - half_widths(closed_lips())
    tokens = torch.zeros_like(reference.token)
    output = generator.decoder(tokens, far, reference, context)
    return output.mouth[0, :, :, MIDDLE + 3].mean(0)


def test_interior_is_drawn_only_if_the_reference_shows_none() -> None:
    lips = closed_lips()
    shut = shown_between(lips)
    line = row_of(half_widths(lips)[0, 14, 1])
    assert shut[line + 8 : line + 12].max() < 0.35
    wide = shown_between(opened(lips, 24))
    assert wide[line + 8 : line + 12].min() > 0.5


def test_a_narrow_gap_is_not_stretched() -> None:
    line = row_of(half_widths(closed_lips())[0, 14, 1])
    shut = shown_between(closed_lips())[line + 8 : line + 12]
    slit = shown_between(opened(closed_lips(), 4))[line + 8 : line + 12]
    assert torch.allclose(slit, shut, atol=0.05)


def test_paint_has_little_weight_between_the_lips() -> None:
    lips = opened(closed_lips(), 24)
    line = row_of(half_widths(lips)[0, 14, 1])
    inside = torch.logit(shown_between(lips, paint=2.0)[line + 8 : line + 12]) - math.log(0.6 / 0.4)
    assert torch.allclose(inside, torch.tensor(0.4), atol=0.1)
    outside = torch.logit(shown_between(lips, paint=2.0)[line - 12]) - math.log(0.6 / 0.4)
    assert outside > 1.5
