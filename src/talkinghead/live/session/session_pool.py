"""Live sessions, each in a process of its own, with limits and crash detection."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import talkinghead.errors
from talkinghead.errors import SpeechError, TalkingHeadError
from talkinghead.live.session.session_process import (
    SessionFactory,
    SessionSettings,
    run_session,
)

log = logging.getLogger(__name__)

_START_TIMEOUT_S, _CALL_TIMEOUT_S, _STOP_TIMEOUT_S = 120.0, 60.0, 5.0
_CHECK_EVERY_S = 1.0
# Maximum number of events waiting for a subscriber; the oldest are dropped.
_MAX_EVENTS = 256
# While a client is connected by WebRTC or a stream, statistics arrive every second.
_MAX_STATS_AGE_S = 5.0
# Events that count as use of the session.
_ACTIVITY = {"transcript", "reply_end"}


class PoolFullError(TalkingHeadError):
    """Error if all sessions are in use; `retry_after_s` is the time until one has ended."""

    def __init__(self, max_sessions: int, retry_after_s: float) -> None:
        super().__init__(
            f"all {max_sessions} sessions are in use: try again later, or raise max_sessions"
        )
        self.retry_after_s = retry_after_s


class SessionLostError(TalkingHeadError):
    """Error for a session whose process has ended."""


@dataclass(frozen=True)
class PoolOptions:
    """Limits of the sessions of a server.

    Attributes:
        max_sessions: Maximum number of sessions at once.
        idle_timeout_s: A session ends after this time in seconds without a question or reply.
        disconnected_timeout_s: A session to which no client is connected ends after this time in
            seconds without a request.
        max_duration_s: Maximum duration of a session in seconds.
        spare: Keep a process with loaded models ready for the next session.
    """

    max_sessions: int = 2
    idle_timeout_s: float = 300.0
    disconnected_timeout_s: float = 60.0
    max_duration_s: float = 3600.0
    spare: bool = True


class SessionPool:
    """The sessions of a server; all methods are called in one asyncio event loop.

    Args:
        factory: Builds the parts of a session in its process.
        options: See `PoolOptions`.

    Attributes:
        sessions: The open sessions by identifier.
    """

    def __init__(self, factory: SessionFactory, options: PoolOptions | None = None) -> None:
        self.factory, self.options = factory, options or PoolOptions()
        self.sessions: dict[str, SessionHandle] = {}
        self._num_opening = 0
        self._spare: asyncio.Task[_Process] | None = None
        self._check: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def max_sessions(self) -> int:
        """Maximum number of sessions."""
        return self.options.max_sessions

    @property
    def num_free(self) -> int:
        """Number of sessions that can be created now."""
        return self.max_sessions - len(self.sessions) - self._num_opening

    async def start(self) -> None:
        """Start the spare process and the supervision of the time limits.

        Raises:
            TalkingHeadError: The models cannot be loaded.
        """
        self._check = asyncio.create_task(self._supervise())
        if self.options.spare:
            await self._replace_spare()

    async def close(self) -> None:
        """Close all sessions and processes."""
        if self._check is not None:
            self._check.cancel()
        closing = [session.close("shutdown") for session in self.sessions.values()]
        if self._spare is not None:
            closing.append(_discard(self._spare))
            self._spare = None
        await asyncio.gather(*closing, *self._stopping)

    def get(self, session_id: str) -> SessionHandle | None:
        """Return an open session, or None."""
        return self.sessions.get(session_id)

    async def create(self, settings: SessionSettings, face: Path) -> SessionHandle:
        """Open a session with a face, a photo or a video.

        Raises:
            PoolFullError: All sessions are in use.
            TalkingHeadError: The face or another part cannot be loaded.
        """
        if self.num_free <= 0:
            raise PoolFullError(self.max_sessions, self._retry_after_s())
        self._num_opening += 1
        try:
            process = await self._take_process()
            session = SessionHandle(process, self)
            try:
                session.video = await session.call("open", face=str(face), settings=settings)
            except BaseException:
                await process.stop()
                raise
        finally:
            self._num_opening -= 1
        self.sessions[session.id] = session
        if self.options.spare and self.num_free > 0:
            self._spare = self._spare or asyncio.create_task(_Process.start(self.factory))
        return session

    def remove(self, session: SessionHandle, process: _Process) -> None:
        """Remove an ended session, end its process, and start a spare process if necessary."""
        self.sessions.pop(session.id, None)
        stopping = asyncio.create_task(process.stop())
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)
        if self.options.spare and self._check is not None and not self._check.done():
            self._spare = self._spare or asyncio.create_task(_Process.start(self.factory))

    async def _take_process(self) -> _Process:
        spare, self._spare = self._spare, None
        if spare is not None:
            process = await spare
            if process.is_alive:
                return process
        return await _Process.start(self.factory)

    async def _replace_spare(self) -> None:
        self._spare = asyncio.create_task(_Process.start(self.factory))
        await asyncio.shield(self._spare)

    def _retry_after_s(self) -> float:
        ends = [session.ends_s for session in self.sessions.values()]
        return max(1.0, min(ends, default=1.0) - time.monotonic())

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            for session in list(self.sessions.values()):
                if reason := session.reason_to_end():
                    log.info("session ended: %s", reason)
                    await session.close(reason)


class SessionHandle:
    """The server's handle of a session.

    Attributes:
        id: Unguessable identifier.
        created_s: When the session was created, on the clock of `time.monotonic`.
        video: Width, height and frame rate of the video.
    """

    def __init__(self, process: _Process, pool: SessionPool) -> None:
        self.id = secrets.token_urlsafe(16)
        self.created_s = self._used_s = self._connected_s = self._stats_s = time.monotonic()
        self.video: dict[str, Any] = {}
        self.state = "idle"
        self._process, self._pool = process, pool
        self._subscribers: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._is_closed = False
        process.on_event = self._on_event
        process.on_end = self._on_end

    @property
    def ends_s(self) -> float:
        """Latest end of the session, on the clock of `time.monotonic`."""
        options = self._pool.options
        idle_s = self._used_s + options.idle_timeout_s
        return min(idle_s, self.created_s + options.max_duration_s)

    def reason_to_end(self) -> str | None:
        """Return why the session has to end now, or None."""
        now_s, options = time.monotonic(), self._pool.options
        if self._subscribers or now_s < self._stats_s + _MAX_STATS_AGE_S:
            self._connected_s = now_s
        if now_s >= self.created_s + options.max_duration_s:
            return "time limit"
        if now_s >= max(self._used_s, self._connected_s) + options.disconnected_timeout_s:
            return "disconnected"
        return "idle" if now_s >= self._used_s + options.idle_timeout_s else None

    async def call(self, op: str, **arguments: Any) -> Any:
        """Run an operation of the session's process (see `session_process`).

        Raises:
            TalkingHeadError: The operation failed with this message.
            SessionLostError: The process has ended.
        """
        if op != "stats":
            self._used_s = time.monotonic()
        return await self._process.call(op, arguments)

    def post(self, op: str, **arguments: Any) -> None:
        """Run an operation without waiting for its result, such as `say_audio`."""
        self._used_s = time.monotonic()
        self._process.post(op, arguments)

    async def subscribe(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of the session until it is closed; the last has the type "closed"."""
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_MAX_EVENTS)
        self._subscribers.add(events)
        try:
            if self._is_closed:
                return
            yield {"type": "state", "state": self.state}
            while (event := await events.get()) is not None:
                yield event
        finally:
            self._subscribers.discard(events)

    async def close(self, reason: str = "deleted") -> None:
        """End the session and its process."""
        self._on_end(reason)
        await self._process.stopped.wait()

    def _on_event(self, event: dict[str, Any]) -> None:
        now_s, kind = time.monotonic(), event["type"]
        self._used_s = now_s if kind in _ACTIVITY else self._used_s
        self._stats_s = now_s if kind == "stats" else self._stats_s
        if event["type"] == "state":
            self.state = event["state"]
        for events in self._subscribers:
            _put(events, event)

    def _on_end(self, reason: str = "crashed") -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for events in self._subscribers:
            _put(events, {"type": "closed", "reason": reason})
            _put(events, None)
        self._pool.remove(self, self._process)


class _Process:
    """A session process and the connection to it."""

    def __init__(self, factory: SessionFactory) -> None:
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None
        self.on_end: Callable[[], None] = lambda: None
        self._ids = count()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopped = asyncio.Event()
        self._send_lock = threading.Lock()
        self._folder = TemporaryDirectory(prefix="talkinghead-session-")
        context = multiprocessing.get_context("spawn")
        self._connection, self._remote = context.Pipe()
        self._process = context.Process(
            target=run_session,
            args=(self._remote, factory, Path(self._folder.name)),
            name="talkinghead-session",
        )

    @classmethod
    async def start(cls, factory: SessionFactory) -> _Process:
        """Start a process, and wait until it has loaded its models."""
        self = cls(factory)
        await asyncio.to_thread(self._process.start)
        self._remote.close()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._receive, args=(loop,), name="session", daemon=True).start()
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), _START_TIMEOUT_S)
        except BaseException:
            await self.stop()
            raise
        return self

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    async def call(self, op: str, arguments: dict[str, Any]) -> Any:
        """Run an operation and return its result."""
        number = next(self._ids)
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.to_thread(self._send, op, arguments, number)
            return await asyncio.wait_for(future, _CALL_TIMEOUT_S)
        except TimeoutError as error:
            raise SpeechError(f"{op} took longer than {_CALL_TIMEOUT_S:g} s: try again") from error
        finally:
            self._calls.pop(number, None)

    def post(self, op: str, arguments: dict[str, Any]) -> None:
        """Run an operation without waiting for its result."""
        self._send(op, arguments, next(self._ids))

    async def stop(self) -> None:
        """End the process, kill it if it does not end in time, and set `stopped`."""
        with suppress(TalkingHeadError):
            self._send("close", {}, next(self._ids))
        process = self._process
        await asyncio.to_thread(process.join, _STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            await asyncio.to_thread(process.join)
        with suppress(OSError):
            self._connection.close()
        await asyncio.to_thread(self._folder.cleanup)
        self.stopped.set()

    def _send(self, op: str, arguments: dict[str, Any], number: int) -> None:
        try:
            with self._send_lock:
                self._connection.send({"op": op, "arguments": arguments, "id": number})
        except OSError as error:
            raise _lost() from error

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass messages to the event loop until the process ends; runs in a thread."""
        with suppress(EOFError, OSError):
            while True:
                message = self._connection.recv()
                loop.call_soon_threadsafe(self._dispatch, message)
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._end)

    def _dispatch(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self.on_event(message["event"])
            return
        future = self._ready if "ready" in message else self._calls.get(message["answer_to"])
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(_error(message["kind"], message["error"]))
        else:
            future.set_result(message.get("result"))

    def _end(self) -> None:
        for future in (self._ready, *self._calls.values()):
            if not future.done():
                future.set_exception(_lost())
        # Retrieve the exception, because asyncio logs exceptions that are never retrieved.
        self._ready.exception()
        self.on_end()


def _lost() -> SessionLostError:
    return SessionLostError("the process of the session has ended: create another session")


def _error(kind: str, message: str) -> Exception:
    cls = getattr(talkinghead.errors, kind, None) if kind else RuntimeError
    return cls(message) if cls is not None else TalkingHeadError(message)


def _put(events: asyncio.Queue[Any], event: dict[str, Any] | None) -> None:
    if events.full():
        events.get_nowait()
    events.put_nowait(event)


async def _discard(spare: asyncio.Task[_Process]) -> None:
    with suppress(TalkingHeadError, TimeoutError):
        await (await spare).stop()
