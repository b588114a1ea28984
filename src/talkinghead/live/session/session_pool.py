"""Live sessions, each in a separate process, with limits and crash detection."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkinghead.errors import TalkingHeadError
from talkinghead.live.session.process_handle import ProcessHandle, SessionLostError
from talkinghead.live.session.session_process import SessionFactory, session_process
from talkinghead.value_rules import PositiveFloat, PositiveInt

log = logging.getLogger(__name__)

_CHECK_EVERY_S = 1.0
# While a session is not idle, the loading of a spare process is put off, for at most this time.
_MAX_PAUSE_S = 60.0
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


class PoolClosedError(TalkingHeadError):
    """Error if a session is created while the server shuts down."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down: try again when it has started again")


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

    max_sessions: PositiveInt = 2
    idle_timeout_s: PositiveFloat = 300.0
    disconnected_timeout_s: PositiveFloat = 60.0
    max_duration_s: PositiveFloat = 3600.0
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
        self._opening: set[asyncio.Task[SessionHandle]] = set()
        self._is_closed = False
        self._spare: _Spare | None = None
        self._check: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def num_free(self) -> int:
        """Number of sessions that can be created now."""
        return self.options.max_sessions - len(self.sessions) - len(self._opening)

    async def start(self) -> None:
        """Start the spare process and the supervision of the time limits, unless they run.

        Raises:
            TalkingHeadError: The models cannot be loaded.
        """
        if self._check is None:
            self._check = asyncio.create_task(self._supervise())
            self._start_spare()
        if self._spare is not None:
            await asyncio.shield(self._spare.starting)

    async def close(self) -> None:
        """Close all sessions and processes; later sessions are refused."""
        self._is_closed = True
        if self._check is not None:
            self._check.cancel()
        spare, self._spare = self._spare, None
        starting: list[asyncio.Task[Any]] = [*self._opening]
        if spare is not None:
            starting.append(spare.starting)
        for task in starting:
            task.cancel()
        closing = [asyncio.create_task(one.close("shutdown")) for one in self.sessions.values()]
        await asyncio.gather(*starting, return_exceptions=True)
        if spare is not None:
            await spare.process.stop()
        await asyncio.gather(*closing, *self._stopping)

    async def create(self, choices: Mapping[str, Any], face: Path) -> SessionHandle:
        """Open a session with a face, a photo or a video.

        Args:
            choices: What the client has chosen; arguments of the operation `open`.
            face: Path of the photo or video.

        Raises:
            PoolFullError: All sessions are in use.
            PoolClosedError: The server shuts down.
            TalkingHeadError: The face or another part cannot be loaded.
        """
        if self._is_closed:
            raise PoolClosedError
        if self.num_free <= 0:
            raise PoolFullError(self.options.max_sessions, self._retry_after_s())
        opening = asyncio.create_task(self._open(choices, face))
        self._opening.add(opening)
        try:
            session = await opening
        except asyncio.CancelledError:
            if self._is_closed:
                raise PoolClosedError from None
            raise
        finally:
            self._opening.discard(opening)
        self._start_spare()
        return session

    def remove(self, session: SessionHandle, process: ProcessHandle) -> None:
        """Remove an ended session, end its process, and start a spare process if necessary."""
        self.sessions.pop(session.id, None)
        stopping = asyncio.create_task(process.stop())
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)
        self._start_spare()

    async def _open(self, choices: Mapping[str, Any], face: Path) -> SessionHandle:
        process = await self._take_process()
        session = SessionHandle(process, self)
        try:
            session.video = await session.call("open", face=str(face), **choices)
        except BaseException:
            await process.stop()
            raise
        if session.is_closed:  # The process died after its answer.
            raise SessionLostError
        self.sessions[session.id] = session
        return session

    async def _take_process(self) -> ProcessHandle:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.pause(False)
            # The spare process may have failed for a reason that does not affect the next one.
            with suppress(TalkingHeadError, TimeoutError, OSError):
                await spare.starting
                if spare.process.is_alive:
                    return spare.process
        process = session_process(self.factory)
        await process.start()
        return process

    def _start_spare(self) -> None:
        """Start a spare process, unless there is one or no session can be created now."""
        if self.options.spare and not self._is_closed and self.num_free > 0:
            self._spare = self._spare or _Spare(session_process(self.factory))

    def pause_spare(self) -> None:
        """Suspend the loading of a spare process while a session listens or replies."""
        if self._spare is not None:
            self._spare.pause(any(one.state != "idle" for one in self.sessions.values()))

    def _retry_after_s(self) -> float:
        ends = [session.ends_s for session in self.sessions.values()]
        return max(1.0, min(ends, default=1.0) - time.monotonic())

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            self.pause_spare()
            for session in list(self.sessions.values()):
                if reason := session.reason_to_end():
                    log.info("session ended: %s", reason)
                    session.end(reason)


class _Spare:
    """A process that loads its models for the next session."""

    def __init__(self, process: ProcessHandle) -> None:
        self.process = process
        self.starting = asyncio.create_task(process.start())
        self.starting.add_done_callback(lambda _: process.pause(False))
        self._started_s = time.monotonic()

    def pause(self, is_paused: bool) -> None:
        """Suspend or resume the loading, which is not put off for longer than `_MAX_PAUSE_S`."""
        if not self.starting.done():
            is_early = time.monotonic() < self._started_s + _MAX_PAUSE_S
            self.process.pause(is_paused and is_early)


class SessionHandle:
    """The server's handle of a session.

    Attributes:
        id: Unguessable identifier.
        created_s: When the session was created, on the clock of `time.monotonic`.
        video: Width, height and frame rate of the video.
        is_closed: The session has ended.
    """

    def __init__(self, process: ProcessHandle, pool: SessionPool) -> None:
        self.id = secrets.token_urlsafe(16)
        self.created_s = self._used_s = self._connected_s = self._stats_s = time.monotonic()
        self.video: dict[str, Any] = {}
        self.state = "idle"
        self._process, self._pool = process, pool
        self._subscribers: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self.is_closed = False
        process.on_event = self._on_event
        process.on_end = self.end

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

    async def subscribe(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of the session until it is closed; the last has the type "closed"."""
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_MAX_EVENTS)
        self._subscribers.add(events)
        try:
            if self.is_closed:
                return
            yield {"type": "state", "state": self.state}
            while (event := await events.get()) is not None:
                yield event
        finally:
            self._subscribers.discard(events)

    async def close(self, reason: str = "deleted") -> None:
        """End the session and its process."""
        self.end(reason)
        await self._process.stop()

    def end(self, reason: str = "crashed") -> None:
        """End the session; its process ends in the background."""
        if self.is_closed:
            return
        self.is_closed = True
        for events in self._subscribers:
            _put(events, {"type": "closed", "reason": reason})
            _put(events, None)
        self._pool.remove(self, self._process)

    def _on_event(self, event: dict[str, Any]) -> None:
        now_s, kind = time.monotonic(), event["type"]
        self._used_s = now_s if kind in _ACTIVITY else self._used_s
        self._stats_s = now_s if kind == "stats" else self._stats_s
        if event["type"] == "state":
            self.state = event["state"]
            self._pool.pause_spare()
        for events in self._subscribers:
            _put(events, event)


def _put(events: asyncio.Queue[Any], event: dict[str, Any] | None) -> None:
    if events.full():
        events.get_nowait()
    events.put_nowait(event)
