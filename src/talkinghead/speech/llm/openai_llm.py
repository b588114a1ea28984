"""Language models on OpenAI's servers or on other servers with a compatible API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

from talkinghead.errors import SpeechError
from talkinghead.speech.openai_client import OpenAIClient
from talkinghead.speech.protocols import Message
from talkinghead.value_rules import NonNegativeInt, PositiveFloat

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class OpenAIChat:
    """A chat model on a server with OpenAI's API, such as OpenAI, Ollama, llama.cpp or vLLM.

    Safe for concurrent callers.

    Args:
        model: Name of the model on the server.
        options: Further fields of each request, such as `temperature` or `max_completion_tokens`;
            their names depend on the server and the model.
        base_url: Address of the server; None uses OPENAI_BASE_URL, or OpenAI's own address.
        api_key_env: Name of the environment variable that holds the key; None sends no key.
        timeout_s: Maximum wait in seconds for a connection, and for each part of the reply.
        max_retries: Maximum number of repetitions of a failed request.

    Raises:
        DependencyError: The package openai or the key is missing.
        UsageError: See `OpenAIClient`.
    """

    def __init__(
        self,
        model: str,
        *,
        options: Mapping[str, Any] | None = None,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout_s: PositiveFloat = 30.0,
        max_retries: NonNegativeInt = 2,
    ) -> None:
        self._options = dict(options or {})
        self._client = OpenAIClient(
            model, base_url, api_key_env, timeout_s, max_retries, "llm=llama or llm=echo"
        )

    def reply(self, messages: Sequence[Message], cancel: Event | None = None) -> Iterator[str]:
        """Yield the pieces of the reply; raise a DependencyError if the server refuses the key."""
        return self._client.stream(partial(self._pieces, [asdict(m) for m in messages]), cancel)

    async def _pieces(self, messages: list[Any], client: AsyncOpenAI) -> AsyncIterator[str]:
        finish, has_text = None, False
        response = await client.chat.completions.create(
            model=self._client.model, messages=messages, stream=True, extra_body=self._options
        )
        async with response:
            async for chunk in response:
                for choice in chunk.choices or ():
                    finish = choice.finish_reason or finish
                    if choice.delta.content:
                        has_text = True
                        yield choice.delta.content
        if finish is None:
            raise ConnectionError("the response ended early")
        if not has_text:
            raise SpeechError(
                f"{self._client.model} returned no text (finish_reason: {finish}): it may refuse "
                "this question, or need more tokens than options allows"
            )
