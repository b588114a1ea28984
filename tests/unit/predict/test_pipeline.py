"""Stages in threads: order, errors, depth, closing and abandoned stages."""

import subprocess
import sys
import threading
import time

import pytest

from talkinghead.predict.pipeline import in_thread


def test_items_keep_their_order():
    assert list(in_thread(iter(range(100)), 3, "count")) == list(range(100))


def test_exception_follows_the_items_before_it():
    def stage():
        yield 1
        raise ValueError("broken")

    items = in_thread(stage(), 3, "fails")
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_stage_is_at_most_depth_items_ahead():
    taken = []

    def stage():
        for item in range(1000):
            taken.append(item)
            yield item

    items = in_thread(stage(), 4, "bounded")
    next(items)
    time.sleep(0.3)
    # One was consumed, four wait, one is on its way into the queue.
    assert len(taken) == 6
    items.close()


def test_closing_ends_the_threads_and_closes_all_stages():
    closed = []

    def numbers():
        try:
            while True:
                yield 0
        finally:
            closed.append("numbers")

    def stage(name, items):
        try:
            yield from items
        finally:
            items.close()
            closed.append(name)

    before = threading.active_count()
    first = in_thread(stage("first", numbers()), 2, "first")
    last = in_thread(stage("last", first), 2, "last")
    next(last)
    with pytest.raises(ZeroDivisionError):
        last.throw(ZeroDivisionError)
    assert closed == ["numbers", "first", "last"]
    assert threading.active_count() == before


def test_exit_of_the_interpreter_waits_for_abandoned_stages(tmp_path):
    program = f"""
import pathlib, threading, time
from contextlib import closing
from talkinghead.predict.pipeline import in_thread

def stage():
    yield 1
    time.sleep(1)
    pathlib.Path({str(tmp_path / "ended")!r}).touch()

cancel = threading.Event()
with closing(in_thread(stage(), 1, "slow", cancel)) as items:
    next(items)
    cancel.set()
    assert next(items, None) is None
"""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "ended").exists()
    assert time.monotonic() - started < 5
