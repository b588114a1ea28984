"""Helpers for threads and processes: exclusive use, cancellable waits, priorities, termination."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import wait as wait_for_objects
from threading import Event, Lock
from typing import Protocol, TypeVar

from talkinghead.errors import UsageError

T = TypeVar("T")


class Closeable(Protocol):
    """An object that must be closed."""

    def close(self) -> None:
        """Release threads, files and other resources."""


C = TypeVar("C", bound=Closeable)

# Interval at which cancellation is checked.
_POLL_S = 0.01
# Niceness of threads and processes with low priority.
_LOW_NICENESS = 10
# Maximum time that a process may take to remove its unfinished files after its parent has died.
_CLEANUP_TIMEOUT_S = 20.0

TERMINATION_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that end a process, apart from Ctrl-C. Windows has no SIGHUP."""


class ExclusiveUse:
    """Context manager for objects with state: a second concurrent caller gets an error.

    Args:
        name: Name of the object, for the error.
        advice: What to do instead, for the error.

    Example:
        >>> use = ExclusiveUse("this stream", "make one stream per caller")
        >>> with use:
        ...     push_samples()
    """

    def __init__(self, name: str, advice: str) -> None:
        self._name, self._advice = name, advice
        self._lock = Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise UsageError(
                f"{self._name} is in use by another caller, and serves one at a time: "
                f"{self._advice}"
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self) -> AbstractContextManager[bool]:
        """Return a context manager that waits for the current caller; it raises no error."""
        return self._lock


def result_unless_cancelled(future: Future[T], cancel: Event) -> T | None:
    """Wait for a result; return None as soon as `cancel` is set.

    An exception of the future is raised. A computation that has not begun is cancelled; one that
    has begun continues, and its result is discarded.
    """
    while not cancel.is_set():
        if wait([future], _POLL_S).done:
            return future.result()
    future.cancel()
    return None


async def make_in_thread(make: Callable[[], C]) -> C:
    """Call a function in a thread, and return the object that it makes.

    A thread cannot be interrupted: if the caller is cancelled, the object is closed when it has
    been made.
    """
    thread = ThreadPoolExecutor(1)
    making = thread.submit(make)
    thread.shutdown(wait=False)
    try:
        return await asyncio.wrap_future(making)
    except asyncio.CancelledError:
        making.add_done_callback(_close_result)
        raise


def _close_result(future: Future[C]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


def lower_thread_priority() -> None:
    """Let the processor run other threads before this one and those that it starts; Linux only."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = max(_LOW_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, niceness)


def lower_process_priority() -> None:
    """Let the processor run other processes before this one, except on Windows."""
    if sys.platform != "win32":
        os.nice(_LOW_NICENESS)


def exit_with_parent() -> None:
    """End this worker process by SIGTERM when its parent process dies, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait_for_objects([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(_CLEANUP_TIMEOUT_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextmanager
def removing_unfinished_files() -> Iterator[None]:
    """End this worker process on SIGTERM or SIGHUP only after unfinished files were removed.

    Use it in the main thread around the work of a process pool, which would catch the exception
    that the signal raises and continue with its next task.
    """
    before = {
        number: signal.signal(number, signal.default_int_handler) for number in TERMINATION_SIGNALS
    }
    try:
        yield
    except KeyboardInterrupt:
        os._exit(1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def num_available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Not on macOS and Windows.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Let processes that are started in this context ignore Ctrl-C.

    They inherit the signal mask of this thread. Windows has no such mask; there, the processes must
    call `ignore_interrupts` themselves.
    """
    if sys.platform == "win32":
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process, on Windows, where `interrupts_blocked` has no effect."""
    if sys.platform == "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
