"""Closing of the lips of references with an open mouth."""

import numpy as np
import pytest

from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.compositing.warp.lip_closure import LipClosure

CENTRE_Y = 0.45


def make_lips(gap):
    """Return lips [20, 2] with a gap between level inner lips."""
    x = 0.5 + 0.2 * np.array([-1, -0.66, -0.33, 0, 0.33, 0.66, 1])
    y = CENTRE_Y + np.array([0, 1, 1, 1, 1, 1, 0]) * (gap / 2 + 0.06)
    upper = np.stack([x, 2 * CENTRE_Y - y], 1)
    lower = np.stack([x, y], 1)[5:0:-1]
    inner_x = 0.5 + 0.17 * np.array([-1, -0.4, 0, 0.4, 1])
    inner_y = gap / 2 * np.array([0, 1, 1, 1, 0])
    inner_upper = np.stack([inner_x, CENTRE_Y - inner_y], 1)
    inner_lower = np.stack([inner_x, CENTRE_Y + inner_y], 1)[3:0:-1]
    return np.concatenate([upper, lower, inner_upper, inner_lower]).astype(np.float32)


def make_fields(gap, shown):
    """Return fields that move lips with a gap so that `shown` of it stays visible."""
    y = (np.arange(48) + 0.5) / 48 - CENTRE_Y
    inside = np.interp(y, [-shown / 2 - 1e-6, shown / 2 + 1e-6], [-gap / 2, gap / 2])
    source = np.where(np.abs(y) <= shown / 2, inside, y + np.sign(y) * (gap - shown) / 2)
    flow = np.zeros((48, 48, 2), np.float32)
    flow[..., 1] = (source - y)[:, None]
    rgb = np.random.default_rng(0).random((96, 96, 3), np.float32)
    return MouthFields(flow, rgb, np.zeros((96, 96), np.float32))


def thickness(flow, gap):
    """Return the thickness of the visible mouth in the middle column."""
    y = (np.arange(3840) + 0.5) / 3840
    rows = (np.arange(len(flow)) + 0.5) / len(flow)
    source = y + np.interp(y, rows, flow[:, len(flow) // 2, 1])
    return np.mean(np.abs(source - CENTRE_Y) < 0.48 * gap)


@pytest.mark.parametrize("gap", [0.05, 0.08])
def test_closed_lips_show_nothing_of_the_open_mouth(gap):
    fields = make_fields(gap, shown=0)
    assert thickness(fields.flow, gap) > 0.012
    closed = LipClosure(make_lips(gap))(fields)
    assert thickness(closed.flow, gap) < 0.006


def test_thickness_increases_with_that_of_the_generator():
    closure, gap = LipClosure(make_lips(0.12)), 0.12
    shown = np.linspace(0, 0.12, 9)
    before = [thickness(make_fields(gap, s).flow, gap) for s in shown]
    after = [thickness(closure(make_fields(gap, s)).flow, gap) for s in shown]
    assert np.all(np.diff(after) > -0.002)
    assert np.all(np.array(after) <= np.array(before) + 0.002)
    assert after[-1] == pytest.approx(before[-1], abs=0.004)


def test_half_open_mouths_keep_their_thickness():
    # Openings above a few hundredths of the box are rendered at full size by the flow alone.
    gap, shown = 0.12, 0.065
    fields = make_fields(gap, shown)
    after = thickness(LipClosure(make_lips(gap))(fields).flow, gap)
    assert after == pytest.approx(thickness(fields.flow, gap), abs=0.004)


def test_positions_away_from_the_lips_keep_their_texture():
    fields = make_fields(0.08, shown=0)
    closed = LipClosure(make_lips(0.08))(fields)
    away = np.abs((np.arange(192) + 0.5) / 192 - CENTRE_Y) > 0.1
    before = np.interp(
        (np.arange(192) + 0.5) / 192, (np.arange(48) + 0.5) / 48, fields.flow[:, 24, 1]
    )
    assert np.allclose(closed.flow[away, 96, 1], before[away], atol=1e-4)


def test_fields_of_a_closed_reference_are_unchanged():
    fields = make_fields(0.01, shown=0)
    assert LipClosure(make_lips(0.01))(fields) is fields


@pytest.mark.parametrize("shift", [(3, 0), (-3, 0), (0, 3), (0, -3)])
def test_mouth_outside_the_box_is_unchanged(shift):
    fields = make_fields(0.08, shown=0)
    assert LipClosure(make_lips(0.08) + np.float32(shift))(fields) is fields
