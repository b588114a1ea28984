"""A substitute for a language model that repeats the question, for demonstrations and tests."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from threading import Event

from talkinghead.errors import UsageError
from talkinghead.speech.protocols import Message
from talkinghead.value_rules import PositiveFloat


class Echo:
    """A `LanguageModel` whose reply repeats the user's last message, one word at a time.

    Safe for concurrent callers.

    Args:
        template: The reply, in which `{}` is replaced by the user's last message.
        tokens_per_second: Rate at which words are produced; None produces them at once.

    Raises:
        UsageError: `tokens_per_second` is not above 0.
    """

    def __init__(
        self, template: str = "You said: {}", tokens_per_second: PositiveFloat | None = None
    ) -> None:
        if tokens_per_second is not None and tokens_per_second <= 0:
            raise UsageError(
                f"llm.tokens_per_second={tokens_per_second}: expected more than 0, or null"
            )
        self._template = template
        self._period_s = 0.0 if tokens_per_second is None else 1 / tokens_per_second

    def reply(self, messages: Sequence[Message], cancel: Event | None = None) -> Iterator[str]:
        """Yield the reply word by word; yield nothing if the user's message is empty."""
        text = next((m.content.strip() for m in reversed(messages) if m.role == "user"), "")
        cancel, started_s = cancel or Event(), time.monotonic()
        words = re.findall(r"\S+\s*", self._template.replace("{}", text)) if text else []
        for number, word in enumerate(words, start=1):
            # Times are relative to the start, so that a slow consumer does not reduce the rate.
            if cancel.wait(max(0.0, started_s + number * self._period_s - time.monotonic())):
                return
            yield word
