"""A local language model: llama.cpp runs a GGUF file in this process, without a network."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.runtime.packaged_weights import smollm2
from talkinghead.speech.protocols import Message
from talkinghead.value_rules import NonNegativeFloat, PositiveFloat, PositiveInt, Seed

# Interval at which cancellation is checked while waiting for the reply.
_POLL_S = 0.01
_BATCH_TOKENS = 64


class Llama:
    """A language model in a GGUF file, with the chat template that is stored in the file.

    Safe for concurrent callers, whose replies are generated one after the other.

    Args:
        model: "packaged" (SmolLM2-135M, for demonstrations only), or the path of a GGUF file.
        context_size: Maximum number of tokens of the messages and the reply together.
        max_tokens: Maximum number of tokens of a reply.
        temperature: Sampling temperature; 0 always selects the most likely token.
        seed: Random seed of the sampling; None draws a new one for each reply.
        num_threads: Number of CPU threads; None uses half of the cores, since llama.cpp's threads
            wait actively and would slow down speech synthesis and rendering.
        timeout_s: Maximum wait in seconds for each piece of the reply, including the first and
            the replies to earlier callers.

    Raises:
        DependencyError: xllamacpp or the file is missing, or llama.cpp cannot load the file.
        UsageError: An option is out of range.
    """

    def __init__(
        self,
        model: str | Path = "packaged",
        *,
        context_size: PositiveInt = 2048,
        max_tokens: PositiveInt = 128,
        temperature: NonNegativeFloat = 0.3,
        seed: Seed | None = None,
        num_threads: PositiveInt | None = None,
        timeout_s: PositiveFloat = 60.0,
    ) -> None:
        if not (0 < max_tokens < context_size and temperature >= 0 and timeout_s > 0):
            raise UsageError(
                f"llm=llama got max_tokens={max_tokens}, context_size={context_size}, "
                f"temperature={temperature}, timeout_s={timeout_s}; expected 0 < max_tokens < "
                "context_size, a temperature of 0 or more, and a timeout above 0"
            )
        self._server = _load(model, context_size, num_threads)
        self._context_size, self._timeout_s = context_size, timeout_s
        self._request = {"max_tokens": max_tokens, "temperature": temperature, "stream": True}
        self._request["return_progress"] = True  # `take` is then called after each batch.
        if seed is not None:
            self._request["seed"] = seed

    def reply(self, messages: Sequence[Message], cancel: Event | None = None) -> Iterator[str]:
        """Yield the pieces of the reply as they are generated."""
        request = {**self._request, "messages": [asdict(message) for message in messages]}
        chunks: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        ended = Event()

        def take(chunk: dict[str, Any]) -> bool:
            chunks.put(chunk)
            return ended.is_set()  # Returning True stops llama.cpp.

        def write() -> None:
            try:
                self._server.handle_chat_completions(request, take)
            except Exception as error:  # noqa: BLE001 - raised in the caller
                chunks.put({"error": {"message": str(error)}})
            finally:
                chunks.put(None)

        Thread(target=write, name="llama").start()
        try:
            while (chunk := self._next(chunks, cancel)) is not None:
                if "error" in chunk:
                    error, advice = chunk["error"], ""
                    if error.get("type") == "exceed_context_size_error":
                        size = f"llm.context_size={self._context_size}"
                        advice = f": raise {size}, or shorten the messages"
                    raise SpeechError(f"llm=llama failed: {error.get('message')}{advice}")
                if text := chunk["choices"][0]["delta"].get("content"):
                    yield text
        finally:
            ended.set()

    def prepare(self, messages: Sequence[Message]) -> None:
        """Process messages, so that a reply to a request that starts with them starts earlier."""
        request = [asdict(message) for message in (*messages, Message("user", ""))]
        # llama.cpp keeps the state of the last request, and processes only what is different.
        self._server.handle_chat_completions({"messages": request, "max_tokens": 1})

    def _next(
        self, chunks: SimpleQueue[dict[str, Any] | None], cancel: Event | None
    ) -> dict[str, Any] | None:
        """Return the next chunk of the response, or None at the end and after cancellation."""
        until_s = time.monotonic() + self._timeout_s
        while cancel is None or not cancel.is_set():
            try:
                return chunks.get(timeout=_POLL_S)
            except Empty:
                if time.monotonic() > until_s:
                    raise SpeechError(
                        f"llm=llama wrote nothing for timeout_s={self._timeout_s:g}; raise "
                        "timeout_s, or choose a smaller model"
                    ) from None
        return None


def _load(model: str | Path, context_size: int, num_threads: int | None) -> Any:
    path = smollm2() if str(model) == "packaged" else Path(model)
    if not path.is_file():
        raise DependencyError(
            f"llm.model={model}: there is no such file; give a GGUF file, or model=packaged"
        )
    try:
        import xllamacpp
    except ImportError as error:
        raise DependencyError(
            f"llm=llama needs xllamacpp ({error}): pip install 'talkinghead[llama]', or choose "
            "llm=echo"
        ) from error
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.verbosity = context_size, 1, -1
    # Cancellation waits for the end of a batch of the prompt.
    params.n_batch = params.n_ubatch = _BATCH_TOKENS
    # By default, llama.cpp would cache up to 8 GB of earlier prompts.
    params.cache_ram_mib = 0
    num_threads = num_threads or max(1, (os.cpu_count() or 1) // 2)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
    # The server also listens on a loopback port; a random key denies access to other programs.
    params.api_keys, params.ui, params.cors_origins = [secrets.token_hex()], False, ""
    params.endpoint_metrics = True
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise DependencyError(
            f"llm.model={model}: llama.cpp cannot load it; expected a complete GGUF file of a "
            "supported model that fits into memory, or model=packaged"
        ) from error
    # Wait until the server's thread runs: destroying the server earlier would block forever.
    server.handle_metrics()
    return server
