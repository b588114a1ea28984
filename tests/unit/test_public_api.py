"""Tests of the names that `import talkinghead` offers."""

from __future__ import annotations

import pytest

import talkinghead


def test_public_names_are_importable_and_listed() -> None:
    assert set(talkinghead.__all__) <= set(dir(talkinghead))
    for name in talkinghead.__all__:
        assert getattr(talkinghead, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        talkinghead.Nothing  # noqa: B018 - the access is the test
