"""Speech to text on a server: OpenAI's, or any that speaks their protocol."""

from __future__ import annotations

import io
import wave
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.speech.openai_client import OpenAIClient
from talkinghead.speech.protocols import Transcript, Word
from talkinghead.speech.voice_activity import SAMPLE_RATE, Utterance, listen
from talkinghead.types import AudioClip, FloatArray

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# OpenAI takes 25 MB: thirteen minutes of 16 kHz in 16 bits. Nobody pauses so long in one thought.
_LONGEST_S, _LONG_SILENCE_S = 600.0, 5.0


class OpenAISpeechToText:
    """A model of OpenAI's that hears, or of another server that speaks their protocol.

    Silence is found here, and never sent.

    Args:
        model: its name on the server.
        language: a two-letter code (ISO 639-1), as a hint; None lets the model find out.
        prompt: words that may occur, such as names.
        word_times: ask for the words' times: whisper-1 and most other servers give them.
        min_silence_s: an utterance of a stream ends with so long a silence.
        base_url: see `OpenAIClient`.
        api_key_env: see `OpenAIClient`.
        timeout_s: see `OpenAIClient`; sending the sound is included.
        max_retries: see `OpenAIClient`.

    Raises:
        DependencyError: the package openai or the key is missing.
        UsageError: `min_silence_s` is not above 0; see `OpenAIClient`.
    """

    def __init__(
        self,
        model: str = "gpt-transcribe",
        *,
        language: str | None = None,
        prompt: str | None = None,
        word_times: bool = False,
        min_silence_s: float = 0.5,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout_s: float = 60.0,
        max_retries: int = 2,
    ) -> None:
        if min_silence_s <= 0:
            raise UsageError(f"min_silence_s={min_silence_s}: expected a time above 0")
        self._language, self._min_silence_s = language, min_silence_s
        hints = {"language": language, "prompt": prompt}
        times = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
        self._word_times = word_times
        self._request: dict[str, Any] = {
            "model": model,
            **{name: value for name, value in hints.items() if value is not None},
            **(times if word_times else {"response_format": "json"}),
        }
        self._client = OpenAIClient(
            model, base_url, api_key_env, timeout_s, max_retries, "stt=whisper"
        )

    def transcribe(self, audio: AudioClip, cancel: Event | None = None) -> Transcript:
        """See `SpeechToText.transcribe`. One request, unless it is long or has a long silence.

        A DependencyError says that the key was refused, or that faster-whisper, which finds the
        silence, is missing.
        """
        sound = [audio.samples], audio.sample_rate
        heard = list(self._hear(listen(*sound, _LONG_SILENCE_S, _LONGEST_S, cancel), cancel))
        return Transcript(
            " ".join(part.text for part in heard),
            next((part.language for part in heard if part.language), None),
            tuple(word for part in heard for word in part.words),
        )

    def stream(
        self, chunks: Iterable[FloatArray], sample_rate: int, cancel: Event | None = None
    ) -> Iterator[Transcript]:
        """See `SpeechToText.stream`, and `transcribe`."""
        parts = listen(chunks, sample_rate, self._min_silence_s, cancel=cancel)
        return self._hear(parts, cancel)

    def _hear(self, parts: Iterable[Utterance], cancel: Event | None) -> Iterator[Transcript]:
        for part in parts:
            for heard in self._client.stream(partial(self._transcripts, part), cancel):
                if heard.text:
                    yield heard

    async def _transcripts(self, part: Utterance, client: AsyncOpenAI) -> AsyncIterator[Transcript]:
        answer = await client.audio.transcriptions.create(
            file=("speech.wav", _wav(part.samples), "audio/wav"), **self._request
        )
        if not isinstance(getattr(answer, "text", None), str):
            raise ValueError("no transcript in it")
        timed = getattr(answer, "words", None) if self._word_times else None
        words = (
            Word(word.word.strip(), part.start_s + word.start, part.start_s + word.end)
            for word in timed or ()
        )
        found = getattr(answer, "language", None) or next(
            (one.code for one in getattr(answer, "languages", None) or ()), ""
        )
        # whisper-1 names it in full ("english").
        language = self._language or (found if len(found) == 2 else None)
        yield Transcript(answer.text.strip(), language, tuple(words))


def _wav(samples: FloatArray) -> bytes:
    """A file of 16 bits, mono, at 16 kHz."""
    pcm = np.clip(np.rint(samples * 32_768.0), -32_768, 32_767).astype("<i2")
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())
    return held.getvalue()
