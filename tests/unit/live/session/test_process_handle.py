"""The parent's end of a session process ends even if the process does not respond."""

import asyncio
import multiprocessing
import time

import pytest
from helpers.live_parts import tone_factory

from talkinghead.live.session import process_handle
from talkinghead.live.session.process_handle import ProcessHandle, SessionLostError


def test_process_that_does_not_read_its_messages_is_killed(monkeypatch):
    monkeypatch.setattr(process_handle, "_STOP_TIMEOUT_S", 0.3)

    async def run():
        handle = ProcessHandle(tone_factory())
        sleeping = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        handle._process = sleeping
        handle._start()
        handle._ready.set_result(None)
        large = {"pcm": bytes(10_000_000), "sample_rate": 16_000}
        blocked = asyncio.create_task(handle.call("say_audio", large))
        await asyncio.sleep(0.3)
        started_s = time.monotonic()
        responses = asyncio.create_task(asyncio.sleep(0.1))  # The event loop must not wait.
        stopping = asyncio.create_task(handle.stop())
        await responses
        assert time.monotonic() - started_s < 0.3
        await asyncio.wait_for(stopping, 10)
        with pytest.raises(SessionLostError):
            await blocked

    asyncio.run(run())
