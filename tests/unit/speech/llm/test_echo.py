"""The echo says what was said, at the rate that it is told."""

from __future__ import annotations

import time
from threading import Event

import pytest

from talkinghead.errors import UsageError
from talkinghead.speech.llm.echo import Echo
from talkinghead.speech.protocols import LanguageModel, Message

TALK = [
    Message("system", "Be brief."),
    Message("user", "First."),
    Message("assistant", "Yes?"),
    Message("user", " How are {0.__class__} you?\nFine? "),
]


def test_says_the_last_thing_again() -> None:
    echo = Echo()
    assert isinstance(echo, LanguageModel)
    pieces = list(echo.reply(TALK))
    assert "".join(pieces) == "You said: How are {0.__class__} you?\nFine?"
    assert len(pieces) == 7
    assert "".join(Echo("{}, {}!").reply([Message("user", "hey")])) == "hey, hey!"
    assert list(echo.reply(TALK[:1])) == []
    assert list(echo.reply([Message("user", "  ")])) == []


def test_writes_at_its_rate_though_its_reader_is_slow() -> None:
    began = time.monotonic()
    for _ in Echo(tokens_per_second=20).reply([Message("user", "a b c d e f g h")]):
        time.sleep(0.05)
    assert 0.5 <= time.monotonic() - began < 0.8


def test_cancel_ends_it_while_it_waits() -> None:
    cancel = Event()
    pieces = Echo(tokens_per_second=5).reply([Message("user", "a b c")], cancel)
    assert next(pieces) == "You "
    cancel.set()
    began = time.monotonic()
    assert list(pieces) == []
    assert time.monotonic() - began < 0.1


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="tokens_per_second=0"):
        Echo(tokens_per_second=0)
