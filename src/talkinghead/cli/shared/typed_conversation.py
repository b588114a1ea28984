"""Answer questions that the user types in a terminal."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from threading import Thread
from typing import Any

from talkinghead.errors import TalkingHeadError
from talkinghead.speech.conversation import Conversation

log = logging.getLogger(__name__)


def answer_typed_lines(conversation: Conversation, folder: Path, options: dict[str, Any]) -> None:
    """Write a clip for each typed line: turn_001.mp4 and so on, numbered after existing clips.

    `options` are keyword arguments of `Conversation.answer_text`.

    Raises:
        TalkingHeadError: Some turns failed; each failure was logged when it happened.
    """
    existing = [path.stem.rpartition("_")[2] for path in folder.glob("turn_*.mp4")]
    first = 1 + max((int(number) for number in existing if number.isdigit()), default=0)
    failed = []
    for number, line in enumerate(_typed_lines(), first):
        try:
            with _interruptible(conversation):
                report = conversation.answer_text(line, folder / f"turn_{number:03}.mp4", **options)
            failed.append(report.error is not None)
        except TalkingHeadError as error:
            log.error("%s", error)
            failed.append(True)
    if any(failed):
        raise TalkingHeadError(f"{sum(failed)} of {len(failed)} turns failed (see above)")


def _typed_lines() -> Iterator[str]:
    """Yield the non-empty lines of standard input until Ctrl-D; replace bytes that are not text."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if line.strip():
            yield line


@contextmanager
def _interruptible(conversation: Conversation) -> Iterator[None]:
    """Let the first Ctrl-C end the turn, and the second Ctrl-C end the program."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        # Use a thread, because the interrupted main thread may hold a lock that `interrupt` needs.
        Thread(target=conversation.interrupt).start()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
