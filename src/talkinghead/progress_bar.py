"""Progress bars with the time left, on stderr."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    track,
)

T = TypeVar("T")


@cache
def stderr_console() -> Console:
    """Return the console of stderr, which bars that are shown at the same time must share."""
    return Console(stderr=True)


def track_items(items: Iterable[T], description: str) -> Iterator[T]:
    """Yield items, and show a bar in a terminal."""
    console = stderr_console()
    is_hidden = not console.is_terminal
    yield from track(items, description, console=console, disable=is_hidden, transient=True)


@contextmanager
def progress_bar(
    description: str, logger: logging.Logger
) -> Iterator[Callable[[float, float], None]]:
    """Show a bar, and yield a function that takes the finished and the whole amount of work.

    A whole amount of 0 means that it is unknown. The bar is shown in a terminal only, not in worker
    processes, whose bars would overwrite each other, and only if `logger` logs informational
    messages, as on the command line.
    """
    console, is_worker = stderr_console(), multiprocessing.parent_process() is not None
    is_hidden = is_worker or not console.is_terminal or not logger.isEnabledFor(logging.INFO)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=is_hidden,
    ) as bars:
        bar = bars.add_task(description, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total or None)
