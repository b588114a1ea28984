"""`talkinghead converse`: answer a spoken or typed question with a talking video."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from talkinghead.cli.shared.builders import build_conversation
from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.predict.options import EncodeOptions
from talkinghead.speech.conversation import Conversation

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Answer the question, or each typed one, as `conf/converse.yaml` describes."""
    needed = ("face", "output") if cfg.interactive else ("face", "audio", "output")
    if missing := [f"{key}=..." for key in needed if cfg[key] is None]:
        raise UsageError(
            f"{' and '.join(missing)} must be given: face=photo.jpg audio=question.wav "
            "output=answer.mp4, or face=photo.jpg output=FOLDER interactive=true"
        )
    conversation = build_conversation(cfg)
    options = {
        "encode": EncodeOptions(cfg.crf, cfg.preset),
        "provenance": instantiate(cfg.provenance),
    }
    if cfg.interactive:
        _answer_typed_lines(conversation, Path(cfg.output), options)
    elif error := conversation.answer(cfg.audio, cfg.output, **options).error:
        raise error


def _answer_typed_lines(conversation: Conversation, folder: Path, options: dict[str, Any]) -> None:
    """Write a clip for each typed line: turn_001.mp4 and so on, after existing clips."""
    existing = [path.stem.rpartition("_")[2] for path in folder.glob("turn_*.mp4")]
    first = 1 + max((int(number) for number in existing if number.isdigit()), default=0)
    number = num_failed = 0
    for number, line in enumerate(_typed_lines(), start=1):
        output = folder / f"turn_{first + number - 1:03}.mp4"
        try:
            with _interruptible(conversation):
                error = conversation.answer_text(line, output, **options).error
        except TalkingHeadError as failure:
            log.error("%s", failure)
            error = failure
        num_failed += error is not None
    if num_failed:
        raise TalkingHeadError(f"{num_failed} of {number} turns failed (see above)")


def _typed_lines() -> Iterator[str]:
    """Yield non-empty lines of the standard input until Ctrl-D."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if line.strip():
            yield line


@contextmanager
def _interruptible(conversation: Conversation) -> Iterator[None]:
    """Let Ctrl-C end the turn, and a second Ctrl-C the program."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        # In a thread, because the interrupted main thread may hold a lock that this needs.
        Thread(target=conversation.interrupt).start()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
