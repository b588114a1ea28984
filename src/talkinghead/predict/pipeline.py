"""Pipelines: stages that run in threads, with bounded queues between them."""

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
# Interval at which a consumer that waits for an item checks for cancellation.
_CANCEL_POLL_S = 0.01
# Maximum time that the interpreter waits for abandoned stages when it exits.
_EXIT_TIMEOUT_S = 5.0
# Queue entry: an item, a flag that marks the end, and the exception that ended the stage.
_Entry: TypeAlias = tuple[T | None, bool, BaseException | None]
_Queue: TypeAlias = "queue.Queue[_Entry[T]]"
_abandoned: WeakSet[threading.Thread] = WeakSet()


def in_thread(
    stage: Iterator[T], depth: int, name: str, cancel: threading.Event | None = None
) -> Generator[T]:
    """Run an iterator in a thread, at most `depth` items ahead of its consumer.

    This generator yields all items that precede an exception of the stage, then raises the
    exception. Closing this generator stops the stage and waits for the end of the thread, so that
    the stage's files are closed.

    Args:
        stage: the iterator; a generator is closed in the thread.
        depth: maximum number of waiting items.
        name: name of the thread.
        cancel: event for a stage that may block on a network. Once the event is set, this generator
            drops the waiting items and ends without waiting for the stage, which stops at its next
            item.

    Example:
        >>> with closing(in_thread(read_video("face.mp4"), 8, "decode")) as frames:
        ...     for frame in frames:
        ...         process(frame)
    """
    items: _Queue[T] = queue.Queue(maxsize=depth)
    stopped = threading.Event()
    thread = threading.Thread(target=_work, args=(stage, items, stopped), name=name, daemon=True)
    thread.start()
    try:
        while cancel is None or not cancel.is_set():
            try:
                item, is_last, error = items.get(timeout=_CANCEL_POLL_S if cancel else None)
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
            _abandoned.add(thread)


def _work(stage: Iterator[T], items: _Queue[T], stopped: threading.Event) -> None:
    failure: BaseException | None = None
    try:
        for item in stage:
            _put((item, False, None), items, stopped)
            if stopped.is_set():
                break
    except BaseException as error:  # noqa: BLE001 - raised again in the consumer
        failure = error
    finally:
        if isinstance(stage, Generator):
            stage.close()
        _put((None, True, failure), items, stopped)


def _put(entry: _Entry[T], items: _Queue[T], stopped: threading.Event) -> None:
    """Put an entry into the queue; discard the entry if the consumer stops the stage."""
    while not stopped.is_set():
        try:
            items.put(entry, timeout=_POLL_S)
        except queue.Full:
            continue
        return


@atexit.register
def _join_abandoned() -> None:
    """Wait for abandoned threads, whose native code could crash the exiting interpreter."""
    deadline_s = time.monotonic() + _EXIT_TIMEOUT_S
    for thread in list(_abandoned):
        thread.join(max(0.0, deadline_s - time.monotonic()))
