"""OpenAI's protocol: one client for what hears, thinks and speaks on a server."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import count
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

from talkinghead.errors import DependencyError, SpeechError, TalkingHeadError, UsageError

if TYPE_CHECKING:
    import ssl

    from openai import AsyncOpenAI

log = logging.getLogger(__name__)

T = TypeVar("T")

# How often a cancellation is looked for, while nothing comes.
_POLL_S = 0.05
# Between tries where the server names no time: doubled each time.
_FIRST_PAUSE_S = 0.5
# A server that asks for more is not waited for: somebody is listening.
_LONGEST_PAUSE_S = 60.0
# Of what a server says, in characters.
_LONGEST_QUOTE = 300
# Busy or broken for the moment, as is everything from 500 on.
_PASSING_STATUSES = (408, 409, 429)


class OpenAIClient:
    """A model on OpenAI's servers, or on another server that speaks their protocol.

    Requests run in a background thread, so that whoever reads their pieces may leave at any time;
    the connection is then closed. The key is in no error, log or repr.

    Args:
        model: its name there.
        base_url: of the server; None is what OPENAI_BASE_URL names, else OpenAI's own.
        api_key_env: the environment variable with the key; None for a server that needs none.
        timeout_s: the longest wait for the first piece, connecting included, and between pieces.
        max_retries: how often a request is made again that failed before its first piece.
        offline: the choice that needs neither a network nor a key, for errors.

    Raises:
        DependencyError: the package openai or the key is missing.
        UsageError: `base_url` is no address, `api_key_env` no variable's name, or a number out of
            its range.
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
                f"timeout_s={timeout_s}, max_retries={max_retries}: expected a time above 0 and no "
                "less than 0 retries"
            )
        self.model = model
        self._offline, self._api_key_env = offline, api_key_env
        self._timeout_s, self._max_retries = timeout_s, max_retries
        # The library insists on a key; a server that needs none does not look at it.
        self._key = _read_key(api_key_env, offline) if api_key_env is not None else ""
        try:
            # Time-outs and further tries are ours: the library's cannot be cancelled.
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=base_url,
                timeout=None,
                max_retries=0,
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
        self._broken = (openai.OpenAIError, httpx2.HTTPError, OSError)
        # The library does not validate: what has another shape than the protocol's fails where it
        # is read.
        self._malformed = (ValueError, TypeError, AttributeError)

    def stream(
        self,
        ask: Callable[[AsyncOpenAI], AsyncIterator[T]],
        cancel: Event | None = None,
    ) -> Iterator[T]:
        """The pieces of an answer as they come; they are read ahead while nobody takes them.

        Args:
            ask: makes the request and gives the answer's pieces (not None). It is called again for
                another try, as long as it has given none.
            cancel: ends it early, also while nothing comes.

        Raises:
            DependencyError: the key was refused.
            SpeechError: the server refused the request, failed or hung up, or nothing came for
                `timeout_s`. What came before was given.
        """
        if cancel is not None and cancel.is_set():
            return
        arrived: SimpleQueue[T | Future[None]] = SimpleQueue()
        answer = asyncio.run_coroutine_threadsafe(self._answer(ask, arrived.put), _loop())
        answer.add_done_callback(arrived.put)
        try:
            while not (cancel is not None and cancel.is_set()):
                try:
                    piece = arrived.get(timeout=_POLL_S)
                except Empty:
                    continue
                if isinstance(piece, Future):
                    piece.result()
                    return
                yield piece
        finally:
            answer.cancel()

    async def _answer(
        self, ask: Callable[[AsyncOpenAI], AsyncIterator[T]], give: Callable[[T], None]
    ) -> None:
        for num_retries in count():
            given = False
            try:
                pieces = ask(self._client)
                while True:
                    async with asyncio.timeout(self._timeout_s):
                        piece = await anext(pieces, None)
                    if piece is None:
                        return
                    given = True
                    give(piece)
            except TalkingHeadError:
                raise
            except (*self._broken, *self._malformed) as error:
                pause_s = self._pause_s(error, num_retries)
                failure = self._explained(error)
            # Out of the `except`, so that no traceback shows what the server or the network said:
            # the key may be in it.
            if given or num_retries >= self._max_retries or pause_s is None:
                raise failure
            log.warning("%s; trying again in %.1f s", failure, pause_s)
            await asyncio.sleep(pause_s)

    def _pause_s(self, error: Exception, num_retries: int) -> float | None:
        """How long to wait before another try, in seconds; None where none would help."""
        status = getattr(error, "status_code", None)
        passing = status is None or status in _PASSING_STATUSES or status >= 500
        spent = getattr(error, "code", None) == "insufficient_quota"
        if not passing or spent or isinstance(error, (TimeoutError, *self._malformed)):
            return None
        told_s = _retry_after_s(error)
        pause_s = _FIRST_PAUSE_S * 2**num_retries if told_s is None else told_s
        return pause_s if pause_s <= _LONGEST_PAUSE_S else None

    def _explained(self, error: Exception) -> TalkingHeadError:
        """A failure as one of ours."""
        status, said = getattr(error, "status_code", None), self._said(error)
        if status == 401:  # Not what it said: that often has a part of the key.
            name = self._api_key_env
            mend = f"put a valid one into {name}" if name else "name its variable in api_key_env"
            return DependencyError(
                f"{self._server} refused the key (401): {mend}, or choose {self._offline}, which "
                "works offline"
            )
        if status == 404:
            hint = f": it may have no model {self.model!r} (model=), or another path (base_url=)"
        elif (told_s := _retry_after_s(error)) is not None:
            hint = f": it asks to be left alone for {told_s:g} s"
        elif status is not None:
            hint = ""
        elif isinstance(error, TimeoutError):
            said = f"nothing came for {self._timeout_s:g} s"
            hint = ": a slow server or model needs a larger timeout_s"
        elif isinstance(error, self._malformed):
            said = f"answered with something else than expected ({said})"
            hint = ": does it speak OpenAI's protocol?"
        else:
            hint = f": check that it can be reached, or choose {self._offline}, which works offline"
        return SpeechError(f"{self._server}: {said}{hint}")

    def _said(self, error: Exception) -> str:
        """What the server or the network said, in one line and without the key."""
        # The library's "Connection error." comes of what tells more.
        cause = error.__cause__ if getattr(error, "body", None) is None else None
        words = str(cause or error) or type(error).__name__
        if self._key:
            words = words.replace(self._key, "***")
        return textwrap.shorten(words, _LONGEST_QUOTE, placeholder=" …").rstrip(".")


def _read_key(variable: str, offline: str) -> str:
    if not re.fullmatch("[A-Z_][A-Z0-9_]*", variable):
        # Nor is it repeated: it may be a key.
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
    # An HTTP header cannot hold it, and the error that says so would quote it.
    if not re.fullmatch("[!-~]+", key):
        raise DependencyError(
            f"the environment variable {variable} holds spaces or other characters that no key "
            "has: put the provider's key into it"
        )
    return key


def _retry_after_s(error: Exception) -> float | None:
    """What a server asks to wait, in seconds; None where it does not say."""
    response = getattr(error, "response", None)
    told = response.headers.get("retry-after") if response is not None else None
    if told is None:
        return None
    try:
        if re.fullmatch(r"\s*\d+(\.\d+)?\s*", told):
            return float(told)
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


@cache
def _certificates() -> ssl.SSLContext:
    """Those that the system trusts, read once for all clients: it takes some tenths of a second."""
    import httpx2

    return httpx2.create_ssl_context()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """What all requests run in: a caller may have an event loop of its own, which may not wait."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="openai", daemon=True).start()
    return loop
