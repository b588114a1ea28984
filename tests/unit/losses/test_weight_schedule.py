"""Loss weight schedules."""

from __future__ import annotations

import pytest

from talkinghead.errors import UsageError
from talkinghead.losses.weight_schedule import build_schedule

RAMP = {"kind": "linear", "start": 0.0, "end": 0.4, "start_iteration": 100, "end_iteration": 200}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (0.3, {0: 0.3, 10_000: 0.3}),
        (RAMP, {0: 0.0, 100: 0.0, 150: 0.2, 200: 0.4, 999: 0.4}),
        ({**RAMP, "end_iteration": 100}, {99: 0.0, 100: 0.4}),
    ],
)
def test_schedules_have_the_expected_values(config, expected) -> None:
    schedule = build_schedule(config)
    assert {i: schedule(i) for i in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "cosine"}, "kind must be linear"),
        ({**RAMP, "speed": 1}, "speed"),
        ({**RAMP, "end_iteration": 50}, "start_iteration"),
        ("0.3", "number or a mapping"),
    ],
)
def test_invalid_schedules_are_refused(config, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_schedule(config)
