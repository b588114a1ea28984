"""Tests of the estimate of the time that is left."""

import pytest

from talkinghead.evaluation import time_left
from talkinghead.evaluation.time_left import TimeLeft


@pytest.mark.parametrize(
    ("step_s", "expected"),
    [(10.0, ["(about 20 s left)", "(about 10 s left)", ""]), (90.0, ["(about 3 min left)"])],
)
def test_time_left_follows_from_the_mean_of_the_steps(monkeypatch, step_s, expected):
    now_s = [0.0]
    monkeypatch.setattr(time_left.time, "monotonic", lambda: now_s[0])
    left = TimeLeft(3)
    found = []
    for _ in expected:
        now_s[0] += step_s
        found.append(left.after_step())
    assert found == expected
