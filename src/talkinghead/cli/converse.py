"""`talkinghead converse`: a question, spoken or typed, to a video that answers it."""

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

from talkinghead.cli.predict import make_predictor, source_options
from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.speech.conversation import Conversation

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Answers the question, or those that are typed, as `conf/converse.yaml` describes."""
    needed = ("face", "output") if cfg.interactive else ("face", "audio", "output")
    if missing := [f"{key}=..." for key in needed if cfg[key] is None]:
        raise UsageError(
            f"{' and '.join(missing)} must be given: face=photo.jpg audio=question.wav "
            "output=answer.mp4, or face=photo.jpg output=FOLDER interactive=true"
        )
    conversation = make_conversation(cfg)
    options = {
        "crf": cfg.crf,
        "preset": cfg.preset,
        "provenance": instantiate(cfg.provenance),
    }
    if cfg.interactive:
        talk(conversation, Path(cfg.output), options)
    elif error := conversation.answer(cfg.audio, cfg.output, **options).error:
        raise error


def make_conversation(cfg: DictConfig) -> Conversation:
    """The conversation that the configuration describes."""
    avatar = make_predictor(cfg).avatar(cfg.face, source_options(cfg))
    return Conversation(
        avatar,
        instantiate(cfg.llm),
        instantiate(cfg.voice),
        None if cfg.interactive else instantiate(cfg.stt),
        system_prompt=cfg.system_prompt,
        language=cfg.language,
        max_reply_chars=cfg.max_reply_chars,
        max_history=cfg.max_history,
        max_question_s=cfg.max_question_s,
        ask_again=cfg.ask_again,
    )


def talk(conversation: Conversation, folder: Path, options: dict[str, Any]) -> None:
    """A clip for each line that is typed: turn_001.mp4 and so on, after those that are there.

    Raises:
        TalkingHeadError: some turns failed; each was told of when it did.
    """
    written = [path.stem.rpartition("_")[2] for path in folder.glob("turn_*.mp4")]
    first = 1 + max((int(number) for number in written if number.isdigit()), default=0)
    number = num_failed = 0
    for number, line in enumerate(_lines(), start=1):
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


def _lines() -> Iterator[str]:
    """What is typed, until Ctrl-D."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if line.strip():
            yield line


@contextmanager
def _interruptible(conversation: Conversation) -> Iterator[None]:
    """Ctrl-C breaks off the turn; a second one, the program."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        # Not here: what the main thread was about to do may hold a lock that this needs.
        Thread(target=conversation.interrupt).start()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
