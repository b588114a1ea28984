"""Running the stages of a pipeline side by side, with bounded queues between them."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import TypeAlias, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_POLL_S = 0.1
# How long the interpreter waits at its end for stages that were left behind.
_PATIENCE_S = 5.0
# An item, whether it is the end, and the error that the stage ended with.
_Entry: TypeAlias = tuple[T | None, bool, BaseException | None]
_Waiting: TypeAlias = "queue.Queue[_Entry[T]]"
_left_behind: WeakSet[threading.Thread] = WeakSet()


def in_thread(
    stage: Iterator[T], depth: int, name: str, cancel: threading.Event | None = None
) -> Generator[T]:
    """Runs an iterator in a thread of its own, at most `depth` items ahead.

    An exception of the stage is raised here, in its turn. When this generator is closed, the stage
    is told to stop, and the thread has ended before `close` returns, so files that the stage holds
    open are free again.

    Args:
        stage: what to run; if it is a generator it is closed in its own thread.
        depth: items that may wait.
        name: the thread's name.
        cancel: for a stage that may wait for a network. Once it is set this ends, whatever waits
            is dropped, and the stage is left to end by itself, at its next item.

    Yields:
        The stage's items, in order.
    """
    waiting: _Waiting[T] = queue.Queue(maxsize=depth)
    stopped = threading.Event()
    thread = threading.Thread(target=_work, args=(stage, waiting, stopped), name=name, daemon=True)
    thread.start()
    try:
        while cancel is None or not cancel.is_set():
            try:
                item, is_last, error = waiting.get(timeout=_POLL_S if cancel else None)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            if is_last:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        if cancel is None:
            thread.join()
        else:
            _left_behind.add(thread)


def _work(stage: Iterator[T], waiting: _Waiting[T], stopped: threading.Event) -> None:
    failure: BaseException | None = None
    try:
        for item in stage:
            _put((item, False, None), waiting, stopped)
            if stopped.is_set():
                break
    except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the consumer.
        failure = error
    finally:
        if isinstance(stage, Generator):
            stage.close()
        _put((None, True, failure), waiting, stopped)


def _put(entry: _Entry[T], waiting: _Waiting[T], stopped: threading.Event) -> None:
    """Waits for room, but not for a consumer that has left."""
    while not stopped.is_set():
        try:
            waiting.put(entry, timeout=_POLL_S)
        except queue.Full:
            continue
        return


@atexit.register
def _wait_for_left_behind() -> None:
    """A thread that is in a library's C++ when the interpreter ends would abort it."""
    until_s = time.monotonic() + _PATIENCE_S
    for thread in list(_left_behind):
        thread.join(max(0.0, until_s - time.monotonic()))
