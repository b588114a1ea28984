import threading
import time

import pytest

from talkinghead.predict.pipeline import in_thread


def test_items_come_in_order():
    assert list(in_thread(iter(range(100)), 3, "count")) == list(range(100))


def test_an_exception_comes_in_its_turn():
    def stage():
        yield 1
        raise ValueError("broken")

    items = in_thread(stage(), 3, "fails")
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_a_stage_runs_ahead_by_its_depth_and_no_more():
    taken = []

    def stage():
        for item in range(1000):
            taken.append(item)
            yield item

    items = in_thread(stage(), 4, "bounded")
    next(items)
    time.sleep(0.3)
    # One was handed over, four wait, one is in the stage's hand.
    assert len(taken) == 6
    items.close()


def test_closing_stops_the_thread_and_closes_every_stage_before_it():
    closed = []

    def stage(name, items):
        try:
            yield from items
        finally:
            items.close()
            closed.append(name)

    def numbers():
        try:
            while True:
                yield 0
        finally:
            closed.append("numbers")

    before = threading.active_count()
    first = in_thread(stage("first", numbers()), 2, "first")
    last = in_thread(stage("last", first), 2, "last")
    next(last)
    last.close()
    assert closed == ["numbers", "first", "last"]
    assert threading.active_count() == before


def test_closing_while_the_consumer_fails_does_not_hang():
    def stage():
        while True:
            yield 0

    items = in_thread(stage(), 1, "endless")
    next(items)
    with pytest.raises(ZeroDivisionError):
        items.throw(ZeroDivisionError)
    assert not [thread for thread in threading.enumerate() if thread.name == "endless"]
