"""Concurrent callers of a pool of Piper processes, with a small program in place of Piper."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest
from helpers import fake_piper

from talkinghead.errors import SpeechError
from talkinghead.speech.tts import piper_pool
from talkinghead.speech.tts.piper_pool import PiperPool


@pytest.fixture
def make_pool():
    pools = []

    def make(max_processes=1, timeout_s=20.0, load_s=0.0):
        command = [sys.executable, fake_piper.__file__, "--load-s", str(load_s)]
        pools.append(PiperPool(command, max_processes, timeout_s))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as executor:
        yield executor


def _speak(pool, sentence, cancel=None):
    speech = pool.speak(sentence, cancel or Event())
    return None if speech is None else fake_piper.as_text(speech)


def _wait_until(condition, timeout_s=10.0):
    until_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("max_processes", [1, 3])
def test_concurrent_callers_get_their_own_sentences(make_pool, threads, max_processes):
    pool = make_pool(max_processes)
    texts = [[f"Caller {n}, sentence {i}." for i in range(20)] for n in range(8)]

    def converse(sentences):
        return [_speak(pool, sentence) for sentence in sentences]

    assert list(threads.map(converse, texts)) == texts
    assert len(pool.pids()) == max_processes


def test_cancellation_returns_at_once_and_does_not_affect_other_callers(make_pool, threads):
    # A cancelled sentence may take as long as loading.
    pool, cancel = make_pool(load_s=1.0), Event()
    _speak(pool, "Loaded.")
    pids = pool.pids()
    cancelled = threads.submit(_speak, pool, "A slow sentence.", cancel)
    time.sleep(0.1)
    other = threads.submit(_speak, pool, "Another caller.")
    started_s = time.monotonic()
    cancel.set()
    assert cancelled.result() is None
    assert time.monotonic() - started_s < 0.1
    assert other.result() == "Another caller."
    assert pool.pids() == pids


def test_cancelled_sentence_that_does_not_end_is_stopped(make_pool, threads):
    pool, cancel = make_pool(), Event()
    _speak(pool, "Loaded.")
    (pid,) = pool.pids()
    cancelled = threads.submit(_speak, pool, "This will hang.", cancel)
    time.sleep(0.1)
    cancel.set()
    assert cancelled.result() is None
    _wait_until(lambda: pool.pids() not in ([], [pid]))
    assert _speak(pool, "Next.") == "Next."


def test_processes_are_added_for_concurrent_callers_and_ended_when_idle(
    make_pool, threads, monkeypatch
):
    monkeypatch.setattr(piper_pool, "_IDLE_S", 0.5)
    pool = make_pool(max_processes=2)
    for number in range(3):
        _speak(pool, f"One caller, sentence {number}.")
    assert len(pool.pids()) == 1
    texts = [f"A slow sentence {number}." for number in range(6)]
    assert list(threads.map(partial(_speak, pool), texts)) == texts
    assert len(pool.pids()) == 2
    _wait_until(lambda: len(pool.pids()) == 1)
    time.sleep(0.6)
    assert len(pool.pids()) == 1


def test_single_caller_does_not_keep_processes_of_earlier_callers(make_pool, threads, monkeypatch):
    pool = make_pool(max_processes=2)
    _speak(pool, "Loaded.")
    list(threads.map(partial(_speak, pool), ["A slow sentence."] * 4))
    assert len(pool.pids()) == 2
    monkeypatch.setattr(piper_pool, "_IDLE_S", 0.5)
    started_s = time.monotonic()
    while len(pool.pids()) > 1:
        _speak(pool, "One caller, without a pause.")
        assert time.monotonic() - started_s < 20


def test_caller_does_not_wait_for_a_process_that_is_loading(make_pool, threads):
    pool = make_pool(max_processes=2, load_s=1.0)
    _speak(pool, "Loaded.")
    first = threads.submit(_speak, pool, "A slow sentence.")
    time.sleep(0.05)
    started_s = time.monotonic()
    assert _speak(pool, "Second.") == "Second."
    assert time.monotonic() - started_s < 0.8
    assert first.result() == "A slow sentence."


def test_callers_are_served_in_order_of_arrival(make_pool, threads):
    pool, served = make_pool(), []
    _speak(pool, "Loaded.")

    def caller(name, num_sentences):
        for _ in range(num_sentences):
            _speak(pool, "A slow sentence.")
            served.append(name)

    first = threads.submit(caller, "first", 3)
    time.sleep(0.1)
    threads.submit(caller, "second", 1).result()
    assert served == ["first", "second"]
    first.result()


@pytest.mark.parametrize("fault", ["crash", "hang", "kill"])
def test_failure_of_a_process_raises_an_error_in_its_own_caller_only(make_pool, threads, fault):
    pool = make_pool(timeout_s=1.5)
    _speak(pool, "Loaded.")
    sentence = {"kill": "A slow sentence."}.get(fault, f"This will {fault}.")
    failing = threads.submit(_speak, pool, sentence)
    time.sleep(0.1)
    other = threads.submit(_speak, pool, "Another caller.")
    if fault == "kill":
        os.kill(pool.pids()[0], signal.SIGKILL)
    message = r"longer than 1\.5 s for 'This will" if fault == "hang" else "piper ended"
    with pytest.raises(SpeechError, match=message):
        failing.result()
    assert other.result() == "Another caller."


def test_closing_ends_processes_and_waiting_callers(make_pool, threads):
    pool = make_pool()
    running = [threads.submit(_speak, pool, f"This will hang, {name}.") for name in ("a", "b")]
    time.sleep(0.2)
    pool.close()
    for call in running:
        with pytest.raises(SpeechError, match="voice was closed"):
            call.result(5)
    assert pool.is_closed
    assert pool.pids() == []
    with pytest.raises(SpeechError, match="voice was closed"):
        pool.speak("Again.", Event())
