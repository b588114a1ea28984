"""A GGUF file in process, by llama.cpp: a language model that needs no network."""

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

_POLL_S = 0.05
"""How long cancelling may go unseen while nothing comes."""


class Llama:
    """Any model that llama.cpp knows, with the chat template that its file brings.

    Args:
        model: "packaged" (SmolLM2-135M: it shows that everything works, and knows little), or the
            path of a GGUF file.
        context_size: tokens of the messages and the reply together.
        max_tokens: the longest reply.
        temperature: 0 always takes the likeliest token.
        seed: the same gives the same reply; None draws one.
        num_threads: None is half of the cores. llama.cpp's threads spin while they wait for one
            another: where the voice and the face keep a core busy, all of them come to a stop.
        timeout_s: the longest wait for the next piece, and for the first.

    Raises:
        DependencyError: xllamacpp or the file is missing, or llama.cpp cannot load it.
        UsageError: an option is out of its range.
    """

    def __init__(
        self,
        model: str | Path = "packaged",
        *,
        context_size: int = 2048,
        max_tokens: int = 128,
        temperature: float = 0.3,
        seed: int | None = None,
        num_threads: int | None = None,
        timeout_s: float = 60.0,
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
        if seed is not None:
            self._request["seed"] = seed

    def reply(self, messages: Sequence[Message], cancel: Event | None = None) -> Iterator[str]:
        """See `LanguageModel.reply`."""
        request = {**self._request, "messages": [asdict(message) for message in messages]}
        chunks: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        ended = Event()

        def take(chunk: dict[str, Any]) -> bool:
            chunks.put(chunk)
            return ended.is_set()  # which makes llama.cpp stop

        def write() -> None:
            try:
                self._server.handle_chat_completions(request, take)
            finally:
                chunks.put(None)

        Thread(target=write, name="llama").start()
        try:
            while (chunk := self._next(chunks, cancel)) is not None:
                if "error" in chunk:
                    raise self._failure(chunk["error"])
                if text := chunk["choices"][0]["delta"].get("content"):
                    yield text
        finally:
            ended.set()

    def _next(
        self, chunks: SimpleQueue[dict[str, Any] | None], cancel: Event | None
    ) -> dict[str, Any] | None:
        """What llama.cpp says next; None at the end, and once it is cancelled."""
        deadline = time.monotonic() + self._timeout_s
        while cancel is None or not cancel.is_set():
            try:
                return chunks.get(timeout=_POLL_S)
            except Empty:
                if time.monotonic() > deadline:
                    raise SpeechError(
                        f"llm=llama wrote nothing for timeout_s={self._timeout_s:g}; raise it, or "
                        "choose a smaller model"
                    ) from None
        return None

    def _failure(self, error: dict[str, Any]) -> SpeechError:
        advice = ""
        if error.get("type") == "exceed_context_size_error":
            advice = f": raise llm.context_size={self._context_size}, or say less"
        return SpeechError(f"llm=llama failed: {error.get('message')}{advice}")


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
    params.n_ctx, params.n_parallel = context_size, 1
    # Prompts that were used before would be kept in up to 8 GB.
    params.cache_ram_mib = 0
    params.verbosity = -1
    num_threads = num_threads or max(1, (os.cpu_count() or 1) // 2)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
    # It also listens on a port of the loopback device, where nobody else is to be answered.
    params.api_keys, params.ui, params.cors_origins = [secrets.token_hex()], False, ""
    params.endpoint_metrics = True
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise DependencyError(
            f"llm.model={model}: llama.cpp cannot load it; expected a whole GGUF file of a model "
            "that it knows and that fits into memory, or model=packaged"
        ) from error
    # Dropped before its thread works on its queue, it would wait for that thread for ever.
    server.handle_metrics()
    return server
