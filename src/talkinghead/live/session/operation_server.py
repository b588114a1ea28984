"""The child's end of a process whose operations its parent calls (see `ProcessHandle`)."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from talkinghead.errors import TalkingHeadError

log = logging.getLogger(__name__)

# Parameter of glibc's `mallopt`.
_M_ARENA_MAX, _MAX_ARENAS = -8, 2


class OperationServer(ABC):
    """The operations of a process: every method `op_NAME` is one.

    Args:
        connection: Connection to the parent process.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._send_lock = threading.Lock()
        self._requests: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def load(self) -> None:
        """Load what the operations need; a `TalkingHeadError` is reported to the parent."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything."""

    def end(self) -> None:
        """End the process soon."""
        self._requests.put_nowait(None)

    async def run(self) -> None:
        """Load, report `ready`, and serve operations until either end closes the connection."""
        receiver = threading.Thread(
            target=self._receive, args=(asyncio.get_running_loop(),), name="requests", daemon=True
        )
        receiver.start()
        try:
            await self.load()
            self.send({"ready": True})
        except TalkingHeadError as error:
            self.send({"ready": False, "error": str(error), "kind": type(error).__name__})
            return
        try:
            while (request := await self._requests.get()) is not None and request["op"] != "close":
                # Operations run concurrently. Those that must keep their order contain no `await`.
                self.start_task(self._handle(request))
        finally:
            await self.close()

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background; it must report its own errors."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message to the parent process; this method may be called from any thread."""
        with self._send_lock, suppress(OSError):
            self._connection.send(message)

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # The loop has ended.
            with suppress(EOFError, OSError):
                while True:
                    request = self._connection.recv()
                    loop.call_soon_threadsafe(self._requests.put_nowait, request)
            loop.call_soon_threadsafe(self.end)

    async def _handle(self, request: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"answer_to": request["id"]}
        try:
            operation = getattr(self, f"op_{request['op']}")
            answer["result"] = await operation(**request["arguments"])
        except TalkingHeadError as error:
            answer |= {"error": str(error), "kind": type(error).__name__}
        except Exception:
            log.exception("operation %s failed", request["op"])
            answer |= {"error": "the operation failed because of an internal error", "kind": ""}
        if request["id"] is not None:
            self.send(answer)


def serve_operations(make_server: Callable[[], OperationServer]) -> None:
    """Serve operations in the main thread of a child process until it is closed."""
    _limit_arenas()
    # Ctrl-C in a terminal reaches all processes, and the parent process closes this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def run() -> None:
        await make_server().run()

    asyncio.run(run())


def _limit_arenas() -> None:
    """Limit the arenas of glibc's malloc.

    Threads do not use the free memory of each other's arenas. With an arena for each new thread of
    a reply, the memory of a session grows for a long time.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # Other C libraries have no `mallopt`.
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _MAX_ARENAS)
