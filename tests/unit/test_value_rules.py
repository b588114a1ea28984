from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from talkinghead.errors import UsageError
from talkinghead.value_rules import (
    PositiveInt,
    Range,
    Seed,
    ValueRule,
    accepts,
    check_fields,
    describe,
    explain_value,
    rules_of,
)

CRF = Annotated[int, Range(0, 51)]


@pytest.mark.parametrize(
    ("annotation", "accepted", "refused"),
    [
        (bool, [True], ["maybe", 1, None]),
        (int, [3, np.int64(3)], [True, 3.0, "3", None]),
        (float, [3, 0.5, np.float32(0.5)], ["high", True, float("nan"), float("inf")]),
        (str, ["", "a"], [1, None]),
        (CRF, [0, 51], [-1, 52, 1.5]),
        (PositiveInt, [1], [0, -3]),
        (Seed, [0], [-1, 2**32]),
        (Annotated[float, Range(above=0)] | None, [None, 0.1], [0, -1]),
        (Literal["a", "b"] | None, ["a", None], ["c", ""]),
        (str | Path | None, ["a", Path("a"), None], [3]),
        (Sequence[str], [["a"], ()], ["a", [1]]),
        (tuple[float, float, float], [[1, 2, 3], np.zeros(3)], [[1, 2], "123"]),
        (Mapping[str, float] | None, [{"a": 1}, None], [{"a": "b"}, [1]]),
        (Any, [object()], []),
    ],
)
def test_values_are_checked_against_annotations(annotation, accepted, refused):
    rules = rules_of(annotation)
    copies = tuple(ValueRule.from_dict(rule.to_dict()) for rule in rules)
    assert copies == rules
    assert all(accepts(rules, value) for value in accepted)
    assert not any(accepts(rules, value) for value in refused)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (CRF, "a whole number from 0 to 51"),
        (PositiveInt, "a whole number at least 1"),
        (Annotated[float, Range(above=0)], "a number above 0"),
        (bool | None, "true or false, or null"),
        (Literal["x", "y", "z"], "x, y or z"),
        (tuple[float, float] | str | Path, "a list of 2 (a number), or a path"),
    ],
)
def test_expected_values_are_described(annotation, text):
    assert describe(rules_of(annotation)) == text


def test_similar_choice_is_suggested():
    rules = rules_of(Literal["veryfast", "slow"])
    assert explain_value("preset", "veryfats", rules) == (
        "preset=veryfats: expected veryfast or slow; did you mean veryfast?"
    )
    assert explain_value("x", True, rules).startswith("x=true: expected")
    assert len(explain_value("x", "a\n" * 999, rules)) < 120


@dataclass
class Base:
    size: PositiveInt = 1
    other: Unknown | None = None  # noqa: F821 - as a name that is imported for type checking


@dataclass
class Options(Base):
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        check_fields(self, "my.")


def test_fields_of_a_dataclass_are_checked():
    Options(3, object(), "b")
    with pytest.raises(UsageError, match=r"my\.size=0: expected a whole number at least 1"):
        Options(0)
    with pytest.raises(UsageError, match=r"my\.mode=c: expected a or b"):
        Options(mode="c")
