"""No model at all: says again what was said, for demonstrations and tests."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from threading import Event

from talkinghead.errors import UsageError
from talkinghead.speech.protocols import Message


class Echo:
    """Replies to the last thing that the user said, word by word.

    Args:
        template: the reply; `{}` in it stands for what was said.
        tokens_per_second: how fast it is written; None is at once.

    Raises:
        UsageError: `tokens_per_second` is not above 0.
    """

    def __init__(
        self, template: str = "You said: {}", tokens_per_second: float | None = None
    ) -> None:
        if tokens_per_second is not None and tokens_per_second <= 0:
            raise UsageError(
                f"llm.tokens_per_second={tokens_per_second}: expected more than 0, or null"
            )
        self._template = template
        self._period_s = 0.0 if tokens_per_second is None else 1 / tokens_per_second

    def reply(self, messages: Sequence[Message], cancel: Event | None = None) -> Iterator[str]:
        """See `LanguageModel.reply`. Nothing where the user said nothing."""
        said = next((m.content.strip() for m in reversed(messages) if m.role == "user"), "")
        cancel = Event() if cancel is None else cancel
        began = time.monotonic()
        words = re.findall(r"\S+\s*", self._template.replace("{}", said)) if said else []
        for number, word in enumerate(words, start=1):
            # Due by the clock, as from a model that goes on writing while its reader is busy.
            if cancel.wait(max(0.0, began + number * self._period_s - time.monotonic())):
                return
            yield word
