"""Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that unfinished files are removed."""

from __future__ import annotations

import signal
from types import FrameType

from talkinghead.concurrency import TERMINATION_SIGNALS

_INTERRUPTED_STATUS = 130


class _Received:
    """The signal that ended this process."""

    number: int | None = None


def handle_termination() -> None:
    """Install the handlers in the main process; ignored signals (nohup) stay ignored."""
    for number in TERMINATION_SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)


def exit_status() -> int:
    """Return the exit status after a `KeyboardInterrupt`: 128 and the number of the signal."""
    return _INTERRUPTED_STATUS if _Received.number is None else 128 + _Received.number


def interruption() -> str:
    """Return the message after a `KeyboardInterrupt`."""
    if _Received.number is None:
        return "interrupted"
    return f"interrupted by {signal.Signals(_Received.number).name}"


def was_terminated() -> bool:
    """Return whether SIGTERM ended this process."""
    return _Received.number == signal.SIGTERM


def _interrupt(number: int, _: FrameType | None) -> None:
    _Received.number = number
    # A second signal must not interrupt the removal of files.
    for one in TERMINATION_SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt
