"""Voices on a server: OpenAI's, or any that speaks their protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.speech.openai_client import OpenAIClient
from talkinghead.speech.sentences import cut_sentences
from talkinghead.types import FloatArray

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_LENGTH = 4096
"""Characters that OpenAI takes in one request."""
# The range of `speed`.
_SLOWEST, _FASTEST = 0.25, 4.0


class OpenAITextToSpeech:
    """A voice of OpenAI's, or of another server that speaks their protocol, as PCM while it speaks.

    Args:
        model: its name on the server.
        voice: its name, or `{"id": ...}` for a custom one.
        instructions: how to speak: an emotion, an accent, a tempo (not for tts-1).
        speed: 0.25 to 4; None is as the model would.
        sample_rate: of the server's PCM, in Hz; OpenAI's is 24 kHz.
        base_url: see `OpenAIClient`.
        api_key_env: see `OpenAIClient`.
        timeout_s: see `OpenAIClient`.
        max_retries: see `OpenAIClient`.

    Raises:
        DependencyError: the package openai or the key is missing.
        UsageError: `speed` is out of its range; see `OpenAIClient`.
    """

    def __init__(
        self,
        model: str = "gpt-4o-mini-tts",
        *,
        voice: str | Mapping[str, str] = "alloy",
        instructions: str | None = None,
        speed: float | None = None,
        sample_rate: int = 24_000,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout_s: float = 30.0,
        max_retries: int = 2,
    ) -> None:
        if speed is not None and not _SLOWEST <= speed <= _FASTEST:
            raise UsageError(f"speed={speed}: expected {_SLOWEST:g} to {_FASTEST:g}")
        self.sample_rate = sample_rate
        manner = {"instructions": instructions, "speed": speed}
        self._request: dict[str, Any] = {
            "model": model,
            "voice": voice,
            "response_format": "pcm",
            **{name: value for name, value in manner.items() if value is not None},
        }
        self._client = OpenAIClient(
            model, base_url, api_key_env, timeout_s, max_retries, "tts=piper"
        )

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """See `TextToSpeech.speak`. What is too long for one request is cut at its sentences.

        A DependencyError says that the key was refused.
        """
        for part in _parts(text):
            yield from self._client.stream(partial(self._pieces, part), cancel)

    async def _pieces(self, text: str, client: AsyncOpenAI) -> AsyncIterator[FloatArray]:
        speech = client.audio.speech.with_streaming_response
        async with speech.create(input=text, **self._request) as answer:
            kind = answer.headers.get("content-type", "")
            if kind.startswith(("text/", "application/json")):
                raise ValueError(f"{kind} instead of PCM")
            half_sample = b""
            async for data in answer.iter_bytes():
                data = half_sample + data
                end = len(data) - len(data) % 2
                half_sample = data[end:]
                if end:
                    yield np.frombuffer(data[:end], "<i2").astype(np.float32) / np.float32(32_768)


def _parts(text: str) -> Iterator[str]:
    """A text in parts of whole sentences, each short enough for a request."""
    if not any(map(str.isalnum, text)):
        return
    part = ""
    for sentence in cut_sentences([text], max_length=MAX_LENGTH) if text[MAX_LENGTH:] else [text]:
        if part and len(part) + 1 + len(sentence) > MAX_LENGTH:
            yield part
            part = ""
        part = f"{part} {sentence}" if part else sentence
    yield part
