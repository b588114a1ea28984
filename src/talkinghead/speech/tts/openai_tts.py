"""Text to speech on OpenAI's servers or on other servers with a compatible API."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.speech.openai_client import OpenAIClient
from talkinghead.speech.sentences import split_sentences
from talkinghead.types import FloatArray
from talkinghead.value_rules import NonNegativeInt, PositiveFloat, PositiveInt, Range

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# First bytes of WAV, MP3, Ogg and FLAC, which some servers send regardless of the requested format.
_OTHER_FORMATS = (b"RIFF", b"ID3", b"OggS", b"fLaC")
MAX_REQUEST_CHARS = 4096
"""Maximum number of characters that OpenAI accepts in one request."""
# Intensity below which the instructions ask for a slight emotion.
_STRONG = 0.5


class OpenAITextToSpeech:
    """A text-to-speech voice on OpenAI's servers or on another server with a compatible API.

    Safe for concurrent callers.

    Args:
        model: Name of the model on the server.
        voice: Name of the voice, or `{"id": ...}` for a custom one.
        instructions: Speaking style: an emotion, an accent, a tempo (not supported by tts-1).
        follow_emotions: Add the emotion of tagged text, such as "[happy] Good morning!", to the
            instructions. Set it to false for a server that refuses instructions.
        speed: Speaking rate, 0.25 to 4; None uses the model's default.
        sample_rate: Sample rate of the server's PCM in Hz; OpenAI's is 24 kHz.
        base_url: Address of the server; None uses OPENAI_BASE_URL, or OpenAI's own address.
        api_key_env: Name of the environment variable that holds the key; None sends no key.
        timeout_s: Maximum wait in seconds for a connection, and for each part of the audio.
        max_retries: Maximum number of repetitions of a failed request.

    Raises:
        DependencyError: The package openai or the key is missing.
        UsageError: `speed` is out of range; see `OpenAIClient`.
    """

    def __init__(
        self,
        model: str = "gpt-4o-mini-tts",
        *,
        voice: str | Mapping[str, str] = "alloy",
        instructions: str | None = None,
        follow_emotions: bool = True,
        speed: Annotated[float, Range(0.25, 4)] | None = None,
        sample_rate: PositiveInt = 24_000,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout_s: PositiveFloat = 30.0,
        max_retries: NonNegativeInt = 2,
    ) -> None:
        if speed is not None and not 0.25 <= speed <= 4:
            raise UsageError(f"speed={speed}: expected 0.25 to 4")
        self.sample_rate = sample_rate
        request = {"model": model, "voice": voice, "instructions": instructions, "speed": speed}
        self._request: Any = {name: value for name, value in request.items() if value is not None}
        self._follow_emotions = follow_emotions and not model.startswith("tts-1")
        self._client = OpenAIClient(
            model, base_url, api_key_env, timeout_s, max_retries, "tts=piper"
        )

    def with_emotion(self, emotion: Emotion) -> OpenAITextToSpeech:
        """Return the voice with an emotion in its instructions, if the model takes instructions."""
        if emotion.is_neutral or not self._follow_emotions:
            return self
        degree = "slightly " if emotion.intensity < _STRONG else ""
        style = f"Speak in a {degree}{emotion.name} tone of voice."
        voice = copy.copy(self)
        instructions = [self._request.get("instructions"), style]
        voice._request = {**self._request, "instructions": " ".join(filter(None, instructions))}
        return voice

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """Yield the speech of a text; split a text that is too long for one request into sentences.

        Raises a DependencyError if the key is refused.
        """
        for part in _parts(text):
            yield from self._client.stream(partial(self._pieces, part), cancel)

    async def _pieces(self, text: str, client: AsyncOpenAI) -> AsyncIterator[FloatArray]:
        speech = client.audio.speech.with_streaming_response
        async with speech.create(input=text, response_format="pcm", **self._request) as response:
            kind = response.headers.get("content-type", "")
            if kind.startswith(("text/", "application/json")):
                raise ValueError(f"{kind} instead of PCM")
            half_sample, has_begun = b"", False
            async for data in response.iter_bytes():
                if not has_begun and data.startswith(_OTHER_FORMATS):
                    raise ValueError(f"another format ({data[:4]!r}, {kind}) instead of PCM")
                has_begun, data = True, half_sample + data
                end = len(data) - len(data) % 2
                half_sample = data[end:]
                if end:
                    yield np.frombuffer(data[:end], "<i2").astype(np.float32) / np.float32(32_768)


def _parts(text: str) -> Iterator[str]:
    """Split a text between sentences into parts that are short enough for one request."""
    if not any(map(str.isalnum, text)):
        return
    part, is_long = "", len(text) > MAX_REQUEST_CHARS
    for sentence in split_sentences([text], max_length=MAX_REQUEST_CHARS) if is_long else [text]:
        if part and len(part) + 1 + len(sentence) > MAX_REQUEST_CHARS:
            yield part
            part = ""
        part = f"{part} {sentence}" if part else sentence
    yield part
