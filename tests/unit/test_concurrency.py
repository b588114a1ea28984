"""Exclusive use of an object, cancellable waits, and priorities of threads."""

import asyncio
import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from talkinghead.concurrency import (
    ExclusiveUse,
    lower_thread_priority,
    make_in_thread,
    result_unless_cancelled,
)
from talkinghead.errors import UsageError


def test_second_caller_is_refused_until_the_first_has_left():
    use = ExclusiveUse("the stream", "make another")
    with (
        use,
        pytest.raises(UsageError, match=r"^the stream is in use by another .*: make another$"),
        use,
    ):
        pass
    with use:
        pass
    with use.wait(), pytest.raises(UsageError), use:
        pass


def test_waiting_for_a_result_ends_at_the_cancellation():
    cancel, future = threading.Event(), Future()
    threading.Timer(0.1, cancel.set).start()
    started_s = time.monotonic()
    assert result_unless_cancelled(future, cancel) is None
    assert 0.05 < time.monotonic() - started_s < 0.2
    assert future.cancelled()
    with ThreadPoolExecutor(1) as executor:
        assert result_unless_cancelled(executor.submit(abs, -2), threading.Event()) == 2
        with pytest.raises(ZeroDivisionError):
            result_unless_cancelled(executor.submit(divmod, 1, 0), threading.Event())


@pytest.mark.skipif(sys.platform != "linux", reason="each thread has its own priority")
def test_low_priority_is_inherited_by_threads_started_later_only():
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def low():
        lower_thread_priority()
        with ThreadPoolExecutor(1) as pool:
            return niceness(), pool.submit(niceness).result()

    before = niceness()
    with ThreadPoolExecutor(1) as pool:
        assert min(pool.submit(low).result()) >= 10
    assert niceness() == before


class Resource:
    """An object that records that it was closed."""

    def __init__(self):
        self.is_closed = threading.Event()

    def close(self):
        self.is_closed.set()


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_object_made_in_a_thread_is_closed_if_nobody_waits_for_it(is_cancelled):
    resource, is_making, may_end = Resource(), threading.Event(), threading.Event()

    def make():
        is_making.set()
        may_end.wait(5)
        return resource

    async def run():
        waiting = asyncio.create_task(make_in_thread(make))
        await asyncio.to_thread(is_making.wait)
        if is_cancelled:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        may_end.set()
        return None if is_cancelled else await waiting

    assert asyncio.run(run()) is (None if is_cancelled else resource)
    assert resource.is_closed.wait(5 if is_cancelled else 0) == is_cancelled


def test_failure_in_a_thread_is_raised():
    def fail():
        raise UsageError("no such face")

    with pytest.raises(UsageError, match="no such face"):
        asyncio.run(make_in_thread(fail))
