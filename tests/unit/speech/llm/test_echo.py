"""The echo model repeats the last message, at a given rate."""

import time
from threading import Event

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
    assert list(echo.reply([Message("user", "  ")])) == []


def test_echo_limits_the_rate_and_stops_when_cancelled():
    cancel, started_s = Event(), time.monotonic()
    pieces = Echo(tokens_per_second=20).reply([Message("user", "a b c d e f g h")], cancel)
    for _ in range(8):
        next(pieces)
        time.sleep(0.05)
    assert 0.4 <= time.monotonic() - started_s < 0.7
    cancel.set()
    assert list(pieces) == []
