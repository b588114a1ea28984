"""Stages in threads: order, errors, depth, closing and abandoned stages."""

import itertools
import subprocess
import sys
import threading
import time

import pytest

from talkinghead.predict.pipeline import in_thread


def test_items_keep_order_and_exception_is_raised_after_items():
    def stage():
        yield from range(100)
        raise ValueError("broken")

    items = in_thread(stage(), 3, "fails")
    assert [next(items) for _ in range(100)] == list(range(100))
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_stage_is_at_most_depth_items_ahead():
    taken = []
    items = in_thread((taken.append(item) for item in range(1000)), 4, "bounded")
    next(items)
    time.sleep(0.3)
    # One item was consumed, four are in the queue, and one waits for space in the queue.
    assert len(taken) == 6
    items.close()


def test_closing_ends_the_threads_and_closes_all_stages():
    closed = []

    def stage(name, items):
        try:
            yield from items
        finally:
            if name != "source":
                items.close()
            closed.append(name)

    before = threading.active_count()
    items = stage("source", itertools.count())
    for name in ("first", "last"):
        items = in_thread(stage(name, items), 2, name)
    next(items)
    with pytest.raises(ZeroDivisionError):
        items.throw(ZeroDivisionError)
    assert closed == ["source", "first", "last"]
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
