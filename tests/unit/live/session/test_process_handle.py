"""The parent's end of a process ends even if the process does not respond."""

import asyncio
import time

import pytest

from talkinghead.live.session import process_handle
from talkinghead.live.session.process_handle import ProcessHandle, SessionLostError


def sleep(connection):
    time.sleep(60)


def test_process_that_does_not_read_its_messages_is_killed(monkeypatch):
    monkeypatch.setattr(process_handle, "_STOP_TIMEOUT_S", 0.3)

    async def run():
        cleaned = []
        handle = ProcessHandle("sleep", sleep, clean_up=lambda: cleaned.append(True))
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
        assert cleaned
        with pytest.raises(SessionLostError):
            await blocked

    asyncio.run(run())
