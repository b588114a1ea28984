"""The parent's end of a child process: start, operations, events and end."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import talkinghead.errors
from talkinghead.errors import SpeechError, TalkingHeadError

_START_TIMEOUT_S, _CALL_TIMEOUT_S, _STOP_TIMEOUT_S = 120.0, 60.0, 5.0


class SessionLostError(TalkingHeadError):
    """Error for a session whose process has ended."""

    def __init__(self) -> None:
        super().__init__("the process of the session has ended: create another session")


class ProcessHandle:
    """A child process that runs an `OperationServer`, and the connection to it.

    Args:
        name: What the process is, for lists of processes.
        target: Function of the process, which takes the connection and the arguments.
        arguments: Further arguments of the function.
        clean_up: Called in a thread when the process has ended.

    Attributes:
        on_event: Called in the event loop with each event of the process.
        on_end: Called in the event loop when the process has ended.
    """

    def __init__(
        self,
        name: str,
        target: Callable[..., None],
        arguments: Sequence[Any] = (),
        clean_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None
        self.on_end: Callable[[], None] = lambda: None
        self._clean_up = clean_up
        self._ids = count()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._stopping: asyncio.Task[None] | None = None
        self._send_lock = threading.Lock()
        context = multiprocessing.get_context("spawn")
        self._connection, self._remote = context.Pipe()
        self._process = context.Process(
            target=target, args=(self._remote, *arguments), name=f"talkinghead-{name}"
        )

    async def start(self) -> None:
        """Start the process, and wait until it is ready.

        Raises:
            TalkingHeadError: The process could not load what it needs.
        """
        starting = asyncio.create_task(asyncio.to_thread(self._start))
        try:
            await asyncio.shield(starting)
            await asyncio.wait_for(asyncio.shield(self._ready), _START_TIMEOUT_S)
        except BaseException:
            await asyncio.wait([starting])
            await self.stop()
            raise

    def _start(self) -> None:
        # OpenBLAS's threads busy-wait after each product, which takes half a core at 25 frames/s.
        # The variable is read when numpy is imported, so it must be in the process's environment.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._process.start()
        self._remote.close()
        threading.Thread(target=self._receive, name="events", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs and is not being stopped."""
        return self._stopping is None and self._process.is_alive()

    def pause(self, is_paused: bool = True) -> None:
        """Suspend or resume a process that runs; Windows has no such signals."""
        if sys.platform != "win32" and self.is_alive and self._process.pid is not None:
            os.kill(self._process.pid, signal.SIGSTOP if is_paused else signal.SIGCONT)

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
            if future.done() and not future.cancelled():
                future.exception()  # asyncio logs exceptions that are never retrieved.

    async def stop(self) -> None:
        """End the process, and kill it if it does not end in time."""
        self._stopping = self._stopping or asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        process = self._process
        if self._ready.done():
            # A process that is stuck may not read its pipe, and a large message may fill the pipe.
            closing = asyncio.to_thread(self._send, "close", {}, next(self._ids))
            with suppress(TalkingHeadError, TimeoutError):
                await asyncio.wait_for(closing, _STOP_TIMEOUT_S)
            await asyncio.to_thread(process.join, _STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            await asyncio.to_thread(process.join)
        process.close()  # Otherwise its pipes stay open until garbage collection.
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._send_lock, suppress(OSError):  # A blocked `send` ends with the process.
            self._connection.close()
        self._clean_up()

    def notify(self, op: str, arguments: dict[str, Any]) -> None:
        """Run an operation without waiting for it; this method may be called from any thread."""
        with suppress(SessionLostError):
            self._send(op, arguments, None)

    def _send(self, op: str, arguments: dict[str, Any], number: int | None) -> None:
        try:
            with self._send_lock:
                self._connection.send({"op": op, "arguments": arguments, "id": number})
        except OSError as error:
            raise SessionLostError from error

    def _receive(self) -> None:
        """Pass messages to the event loop until the process ends; runs in a thread."""
        with suppress(EOFError, OSError):
            while True:
                message = self._connection.recv()
                self._loop.call_soon_threadsafe(self._dispatch, message)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

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
                future.set_exception(SessionLostError())
        # Retrieve the exception, because asyncio logs exceptions that are never retrieved.
        self._ready.exception()
        self.on_end()


def _error(kind: str, message: str) -> Exception:
    cls = getattr(talkinghead.errors, kind, None) if kind else RuntimeError
    return cls(message) if cls is not None else TalkingHeadError(message)
