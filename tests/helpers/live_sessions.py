"""A session pool without processes and models, and a live server for tests."""

from __future__ import annotations

import asyncio
import math
import os
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import uvicorn
from starlette.testclient import TestClient

from talkinghead.errors import MediaError, UsageError
from talkinghead.live.server.server_app import create_app
from talkinghead.live.server.server_settings import ServerSettings
from talkinghead.live.session.process_handle import SessionLostError
from talkinghead.live.session.session_pool import PoolFullError, PoolOptions

BASE_URL, WS_URL = "http://localhost:8000", "ws://localhost:8000"


class FakeSession:
    """A fake session that immediately echoes text and audio."""

    def __init__(self, pool, choices, face):
        self.pool, self.choices, self.face = pool, choices, face
        self.id = f"session-{len(pool.created)}-{'x' * 12}"
        self.state, self.video = "idle", {"width": 192, "height": 160, "fps": 25.0}
        self.calls = []
        self._rate, self._image, self._turn = 48_000, b"", 0
        self._subscribers = []
        self.is_lost = False

    async def call(self, op, **arguments):
        if self.is_lost:
            raise SessionLostError
        self.calls.append((op, arguments))
        operation = getattr(self, f"_{op}", None)
        return operation(**arguments) if operation else None

    async def subscribe(self):
        events = asyncio.Queue()
        self._subscribers.append(events)
        yield {"type": "state", "state": self.state}
        while (event := await events.get()) is not None:
            yield event

    async def close(self, reason="deleted"):
        if self.pool.sessions.pop(self.id, None):
            self.emit({"type": "closed", "reason": reason}, None)

    def emit(self, *events):
        for event in events:
            if event and event["type"] == "state":
                self.state = event["state"]
            for queue in self._subscribers:
                queue.put_nowait(event)

    def ops(self):
        return [op for op, _ in self.calls]

    def speak(self, text, pcm=b"\1\0" * 480, interrupted=False):
        """Emit the events of a reply."""
        self._turn += 1
        frame = {"type": "frame", "time_s": 1.0, "reply": self._turn, "audio": pcm}
        frame |= {"image": self._image, "is_keyframe": bool(self._image), "is_reply_end": False}
        self.emit(
            {"type": "state", "state": "speaking"},
            frame,
            {"type": "transcript", "role": "assistant", "text": text, "turn": self._turn},
            {"type": "reply_end", "turn": self._turn, "interrupted": interrupted},
            {**frame, "is_reply_end": True},
            {"type": "state", "state": "idle"},
        )
        return {"turn": self._turn}

    def _say(self, text):
        return self.speak(text)

    def _ask(self, text):
        return self.speak(f"You said: {text}")

    def _say_audio(self, pcm, sample_rate, is_complete=False):
        return self.speak("", pcm)

    def _listen(self, pcm, sample_rate):
        if not any(pcm[-2400:]):
            self.emit(
                {"type": "state", "state": "listening"},
                {"type": "state", "state": "thinking"},
                {"type": "transcript", "role": "user", "text": "Hello?", "is_final": True},
            )
            self.speak("Yes.")

    def _stream(self, image, quality, sample_rate):
        self._image = {"jpeg": b"\xff\xd8jpeg", "h264": b"\0\0\1h264", "none": b""}[image]

    def _offer(self, sdp, type):
        if "v=0" not in sdp:
            raise UsageError("sdp: not a session description; send that of a browser")
        return {"sdp": "v=0 answer", "type": "answer"}

    def _stats(self):
        return {"frames_per_second": 25.0, "num_dropped": 0}

    def _record(self):
        return {"video": self.pool.recording, "subtitles": "/nowhere/answer.srt"}


class FakePool:
    """A pool with the interface of `SessionPool`."""

    def __init__(self, max_sessions=2):
        self.options = PoolOptions(max_sessions)
        self.sessions, self.created = {}, []
        self.recording = "/nowhere/answer.mp4"
        self.is_open = False

    async def start(self):
        self.is_open = True

    async def close(self):
        self.is_open = False
        for session in list(self.sessions.values()):
            await session.close("shutdown")

    async def create(self, choices, face):
        if len(self.sessions) >= self.options.max_sessions:
            raise PoolFullError(self.options.max_sessions, 42.4)
        session = FakeSession(self, choices, face)
        self.sessions[session.id] = session
        self.created.append(session)
        return session


@contextmanager
def open_client(pool=None, base_url=BASE_URL, **settings):
    """Yield a test client of a server with the settings, and unlimited rates by default."""
    rates = {"requests_per_s": 1e6, "creations_per_min": 1e6}
    app = create_app(ServerSettings(**{**rates, **settings}), pool or FakePool())
    with TestClient(app, base_url, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def serve(pool=None, **settings):
    """Run a server on a free port of the loopback address; yield its port."""
    rates = {"requests_per_s": 1e6, "creations_per_min": 1e6}
    app = create_app(ServerSettings(**{**rates, **settings}), pool or FakePool())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="info", log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def wav_bytes(duration_s=0.1, sample_rate=16_000, channels=1, width=2):
    """Return a WAV file with a sine of 440 Hz."""
    count = round(duration_s * sample_rate)
    values = [round(9000 * math.sin(0.17 * n)) for n in range(count) for _ in range(channels)]
    data = struct.pack(f"<{len(values)}h", *values)[: len(values) * width]
    block = channels * width
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, channels,
        sample_rate, sample_rate * block, block, 8 * width,
    )  # fmt: skip
    return head + struct.pack("<4sI", b"data", len(data)) + data


class FakeRunner:
    """A renderer of video jobs; the texts "fail", "crash" and "wait" select its behaviour."""

    def run(self, job, progress):
        progress(1, 4)
        match job.text:
            case "fail":
                error = MediaError(f"{job.face}: cannot be read")
                return SimpleNamespace(error=error)
            case "raise":
                raise RuntimeError("secret")
            case "crash":
                os._exit(1)
            case "wait":
                Path(job.output).with_name("started").touch()
                time.sleep(60)
        Path(job.output).write_bytes(b"video of %s" % str(job.audio or job.text).encode())
        return SimpleNamespace(error=None)
