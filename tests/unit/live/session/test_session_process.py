"""The process of a session builds its parts once."""

import multiprocessing
import threading
import time
from dataclasses import replace
from pathlib import Path

from helpers.live_parts import ToneVoice, tone_factory

from talkinghead.live.session.session_process import _Session


def test_voice_that_two_requests_need_at_once_is_built_once():
    built = []

    def make_voice():
        built.append(time.monotonic())
        time.sleep(0.3)
        return ToneVoice()

    factory = replace(tone_factory(), voices={"tone": ToneVoice, "slow": make_voice})
    connection, _ = multiprocessing.Pipe()
    session = _Session(connection, factory, Path())
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(session._part("voices", "slow")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert found[0] is found[1] is found[2]
