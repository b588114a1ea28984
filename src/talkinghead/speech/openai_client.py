"""A client for OpenAI's API, shared by speech to text, language models and text to speech."""

from __future__ import annotations

import asyncio
import os
import re
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from functools import cache
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, TypeVar

from talkinghead.errors import DependencyError, SpeechError, TalkingHeadError, UsageError

if TYPE_CHECKING:
    import ssl

    from openai import AsyncOpenAI

T = TypeVar("T")

# Interval at which cancellation is checked while waiting for a response.
_POLL_S = 0.01
_MAX_QUOTED_CHARS = 300
_loop_lock = Lock()


class OpenAIClient:
    """A client for a model on OpenAI's servers or on another server with a compatible API.

    Safe for concurrent callers. Requests run in a background thread, so that the consumer of a
    response can stop at any time; the connection is then closed. The key never appears in an error,
    a log line or a repr.

    The official client retries connection errors, timeouts and the statuses 408, 409, 429 and 5xx,
    after its own pauses or the server's `Retry-After` of at most two minutes. A response that has
    begun is never requested again.

    The arguments are those of the adapters, such as `OpenAIChat`, and `offline`: the alternative
    that needs neither network nor key, named in errors.

    Raises:
        DependencyError: The package openai or the key is missing.
        UsageError: An option is out of range or malformed.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        api_key_env: str | None,
        timeout_s: float,
        max_retries: int,
        offline: str,
    ) -> None:
        try:
            import httpx2
            import openai
        except ImportError as error:
            raise DependencyError(
                f"the package openai, 3.0 or later, is not installed ({error}): "
                f"pip install 'talkinghead[speech]', or choose {offline}, which works offline"
            ) from error
        if timeout_s <= 0 or max_retries < 0:
            raise UsageError(
                f"timeout_s={timeout_s}, max_retries={max_retries}: expected a time above 0 and 0 "
                "or more retries"
            )
        self.model, self._timeout_s = model, timeout_s
        self._offline, self._api_key_env = offline, api_key_env
        # The library requires a key; a server that needs no key ignores the placeholder.
        self._key = _read_key(api_key_env, offline) if api_key_env is not None else ""
        try:
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=base_url,
                timeout=timeout_s,
                max_retries=max_retries,
                http_client=openai.DefaultAsyncHttpxClient(verify=_certificates()),
            )
            url = self._client.base_url
        except httpx2.InvalidURL as error:
            raise UsageError(f"base_url={base_url}: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError(
                f"base_url={url}: expected an address such as http://localhost:11434/v1"
            )
        self._server = f"{url.scheme}://{url.netloc.decode()}"
        self._timeouts = (openai.APITimeoutError, httpx2.TimeoutException)
        self._failures = (openai.OpenAIError, httpx2.HTTPError, OSError)
        # Errors of reading a malformed response, because the library does not validate responses.
        self._malformed = (ValueError, TypeError, AttributeError)

    def stream(
        self, request: Callable[[AsyncOpenAI], AsyncIterator[T]], cancel: Event | None = None
    ) -> Iterator[T]:
        """Yield the parts of a response as they arrive; a thread reads ahead of the consumer.

        Args:
            request: Sends the request and yields the parts of the response.
            cancel: Ends the iteration early, also while nothing arrives.

        Raises:
            DependencyError: The key was refused.
            SpeechError: The server refused the request, failed, closed the connection or exceeded
                `timeout_s`. The parts before the failure were yielded.
        """
        cancel = cancel or Event()
        if cancel.is_set():
            return
        arrived: SimpleQueue[T | Future[None]] = SimpleQueue()
        response = asyncio.run_coroutine_threadsafe(self._read(request, arrived.put), _event_loop())
        response.add_done_callback(arrived.put)
        try:
            while not cancel.is_set():
                try:
                    part = arrived.get(timeout=_POLL_S)
                except Empty:
                    continue
                if isinstance(part, Future):
                    part.result()
                    return
                yield part
        finally:
            response.cancel()

    async def _read(
        self, request: Callable[[AsyncOpenAI], AsyncIterator[T]], put: Callable[[T], None]
    ) -> None:
        try:
            async for part in request(self._client):
                put(part)
            return
        except TalkingHeadError:
            raise
        except (*self._failures, *self._malformed) as error:
            failure = self._explained(error)
        # Raise outside the `except` block, so that the original error, which may quote the key,
        # does not appear in tracebacks.
        raise failure

    def _explained(self, error: Exception) -> TalkingHeadError:
        status, reason = getattr(error, "status_code", None), self._reason(error)
        if status == 401:  # Omit the server's message, which often quotes a part of the key.
            name = self._api_key_env
            fix = f"put a valid one into {name}" if name else "name its variable in api_key_env"
            return DependencyError(
                f"{self._server} refused the key (401): {fix}, or choose {self._offline}, which "
                "works offline"
            )
        if status == 404:
            hint = f": it may have no model {self.model!r} (model=), or another path (base_url=)"
        elif status is not None:
            wait = getattr(getattr(error, "response", None), "headers", {}).get("retry-after")
            hint = f": the server asks to wait (Retry-After: {wait})" if wait else ""
        elif isinstance(error, self._timeouts):
            reason = f"nothing arrived for {self._timeout_s:g} s"
            hint = ": a slow server or model needs a larger timeout_s"
        elif isinstance(error, self._malformed):
            reason = f"sent an unexpected response ({reason})"
            hint = ": does it implement OpenAI's API?"
        else:
            hint = f": check that it can be reached, or choose {self._offline}, which works offline"
        return SpeechError(f"{self._server}: {reason}{hint}")

    def _reason(self, error: Exception) -> str:
        """Return the message of the server or the network error as one line, without the key."""
        # The library's message may be only "Connection error."; the cause is more specific.
        cause = error.__cause__ if getattr(error, "body", None) is None else None
        message = str(cause or error) or type(error).__name__
        if self._key:
            message = message.replace(self._key, "***")
        return textwrap.shorten(message, _MAX_QUOTED_CHARS, placeholder=" …").rstrip(".")


def _read_key(variable: str, offline: str) -> str:
    if not re.fullmatch("[A-Z_][A-Z0-9_]*", variable):
        # The message does not quote the value, because the value may be a key.
        raise UsageError(
            "api_key_env is not the name of an environment variable: expected one in capitals, "
            "such as OPENAI_API_KEY, and never the key itself"
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise DependencyError(
            f"the environment variable {variable} is not set: put the provider's key into it, or "
            f"choose {offline}, which works offline"
        )
    # A key with other characters cannot be sent in an HTTP header, and the library's error would
    # quote the key.
    if not re.fullmatch("[!-~]+", key):
        raise DependencyError(
            f"the environment variable {variable} holds spaces or other characters that no key "
            "has: put the provider's key into it"
        )
    return key


@cache
def _certificates() -> ssl.SSLContext:
    """Return an SSL context with the system's certificates; cached, because loading is slow."""
    import httpx2

    return httpx2.create_ssl_context()


def _event_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop for all requests, which runs in a separate background thread."""
    # All clients need the same event loop. Without the lock, `cache` could create two loops.
    with _loop_lock:
        return _new_event_loop()


@cache
def _new_event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="openai", daemon=True).start()
    return loop
