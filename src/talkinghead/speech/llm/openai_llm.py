"""Language models on a server: OpenAI's, or any that speaks their protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

from talkinghead.errors import SpeechError
from talkinghead.speech.openai_client import OpenAIClient
from talkinghead.speech.protocols import Message

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class OpenAIChat:
    """A chat model of OpenAI's, or of Ollama, llama.cpp's server, vLLM and their like.

    Args:
        model: its name on the server.
        options: what else a request says, such as `temperature` or `max_completion_tokens`; names
            differ between servers and models.
        base_url: see `OpenAIClient`.
        api_key_env: see `OpenAIClient`.
        timeout_s: see `OpenAIClient`.
        max_retries: see `OpenAIClient`.

    Raises:
        DependencyError: the package openai or the key is missing.
        UsageError: see `OpenAIClient`.
    """

    def __init__(
        self,
        model: str,
        *,
        options: Mapping[str, Any] | None = None,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout_s: float = 30.0,
        max_retries: int = 2,
    ) -> None:
        self._options = dict(options or {})
        self._client = OpenAIClient(
            model, base_url, api_key_env, timeout_s, max_retries, "llm=llama or llm=echo"
        )

    def reply(self, messages: Sequence[Message], cancel: Event | None = None) -> Iterator[str]:
        """See `LanguageModel.reply`. A DependencyError says that the key was refused."""
        return self._client.stream(partial(self._pieces, [asdict(m) for m in messages]), cancel)

    async def _pieces(self, messages: list[Any], client: AsyncOpenAI) -> AsyncIterator[str]:
        finish, spoken = None, False
        answer = await client.chat.completions.create(
            model=self._client.model, messages=messages, stream=True, extra_body=self._options
        )
        async with answer:
            async for chunk in answer:
                for choice in chunk.choices or ():
                    finish = choice.finish_reason or finish
                    if choice.delta.content:
                        spoken = True
                        yield choice.delta.content
        if finish is None:
            raise ConnectionError("the answer broke off")
        if not spoken:
            raise SpeechError(
                f"{self._client.model} ended without a word (finish_reason: {finish}): it may not "
                "answer this, or need more tokens than options allows"
            )
