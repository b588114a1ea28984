"""The echo model repeats the last message, at a given rate."""

import time
from threading import Event

import pytest

from talkinghead.errors import UsageError
from talkinghead.speech.llm.echo import Echo
from talkinghead.speech.protocols import LanguageModel, Message

MESSAGES = [
    Message("system", "Be brief."),
    Message("user", "First."),
    Message("assistant", "Yes?"),
    Message("user", " How are {0.__class__} you?\nFine? "),
]


def test_last_user_message_is_repeated():
    echo = Echo()
    assert isinstance(echo, LanguageModel)
    pieces = list(echo.reply(MESSAGES))
    assert "".join(pieces) == "You said: How are {0.__class__} you?\nFine?"
    assert len(pieces) == 7
    assert "".join(Echo("{}, {}!").reply([Message("user", "hey")])) == "hey, hey!"
    assert list(echo.reply(MESSAGES[:1])) == []
    assert list(echo.reply([Message("user", "  ")])) == []


def test_rate_does_not_depend_on_a_slow_consumer():
    began = time.monotonic()
    for _ in Echo(tokens_per_second=20).reply([Message("user", "a b c d e f g h")]):
        time.sleep(0.05)
    assert 0.5 <= time.monotonic() - began < 0.8


def test_cancellation_ends_the_wait():
    cancel = Event()
    pieces = Echo(tokens_per_second=5).reply([Message("user", "a b c")], cancel)
    assert next(pieces) == "You "
    cancel.set()
    began = time.monotonic()
    assert list(pieces) == []
    assert time.monotonic() - began < 0.1


def test_rate_of_zero_is_refused():
    with pytest.raises(UsageError, match="tokens_per_second=0"):
        Echo(tokens_per_second=0)
