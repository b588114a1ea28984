"""Running the stages of a pipeline side by side, with bounded queues between them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.1


def in_thread(stage: Iterator[T], depth: int, name: str) -> Generator[T]:
    """Runs an iterator in a thread of its own, at most `depth` items ahead.

    An exception of the stage is raised here, in its turn. When this generator is closed, the stage
    is told to stop, and the thread has ended before `close` returns, so files that the stage holds
    open are free again.

    Args:
        stage: what to run; if it is a generator it is closed in its own thread.
        depth: items that may wait.
        name: the thread's name.

    Yields:
        The stage's items, in order.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: T | None, error: BaseException | None = None, last: bool = False) -> None:
        while not stopped.is_set():
            try:
                waiting.put((item, error, last), timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def work() -> None:
        failure: BaseException | None = None
        try:
            for item in stage:
                put(item)
                if stopped.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the consumer.
            failure = error
        finally:
            if isinstance(stage, Generator):
                stage.close()
            put(None, failure, last=True)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = waiting.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
