"""Speech to text on OpenAI's servers or on other servers with a compatible API."""

from __future__ import annotations

import io
import wave
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

from talkinghead.errors import UsageError
from talkinghead.media.audio_samples import to_int16
from talkinghead.speech.openai_client import OpenAIClient
from talkinghead.speech.protocols import Transcript, Word
from talkinghead.speech.voice_activity import SAMPLE_RATE, Utterance, stream_utterances
from talkinghead.types import AudioClip, FloatArray
from talkinghead.value_rules import NonNegativeInt, PositiveFloat

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# OpenAI accepts files up to 25 MB, thirteen minutes of 16-bit audio at 16 kHz. Clips are split at
# long silences.
_MAX_REQUEST_S, _CLIP_SILENCE_S = 600.0, 5.0


class OpenAISpeechToText:
    """A speech-to-text model on OpenAI's servers or on another server with a compatible API.

    Safe for concurrent callers. Silence is detected locally and never sent.

    Args:
        model: Name of the model on the server.
        language: Two-letter code (ISO 639-1), as a hint; None lets the model detect the language.
        prompt: Words that may occur, such as names.
        word_times: Whether to request word times; whisper-1 and most other servers support them.
        min_silence_s: Silence in seconds that ends an utterance of a stream.
        base_url: Address of the server; None uses OPENAI_BASE_URL, or OpenAI's own address.
        api_key_env: Name of the environment variable that holds the key; None sends no key.
        timeout_s: Maximum wait in seconds for a connection, and for the transcript.
        max_retries: Maximum number of repetitions of a failed request.

    Raises:
        DependencyError: The package openai or the key is missing.
        UsageError: `min_silence_s` is not above 0; see `OpenAIClient`.
    """

    def __init__(
        self,
        model: str = "gpt-transcribe",
        *,
        language: str | None = None,
        prompt: str | None = None,
        word_times: bool = False,
        min_silence_s: PositiveFloat = 0.5,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout_s: PositiveFloat = 60.0,
        max_retries: NonNegativeInt = 2,
    ) -> None:
        if min_silence_s <= 0:
            raise UsageError(f"min_silence_s={min_silence_s}: expected a time above 0")
        self._language, self._min_silence_s = language, min_silence_s
        self._word_times = word_times
        request = {
            "model": model,
            "language": language,
            "prompt": prompt,
            "response_format": "verbose_json" if word_times else "json",
            "timestamp_granularities": ["word"] if word_times else None,
        }
        self._request: Any = {name: value for name, value in request.items() if value is not None}
        self._client = OpenAIClient(
            model, base_url, api_key_env, timeout_s, max_retries, "stt=whisper"
        )

    def transcribe(self, audio: AudioClip, cancel: Event | None = None) -> Transcript:
        """Transcribe a clip; split the clip if it is long or contains a long silence.

        Raises a DependencyError if the key is refused, or if faster-whisper, which detects the
        silence, is missing.
        """
        utterances = stream_utterances(
            [audio.samples], audio.sample_rate, _CLIP_SILENCE_S, _MAX_REQUEST_S, cancel=cancel
        )
        parts = list(self._transcribe(utterances, cancel))
        return Transcript(
            " ".join(part.text for part in parts),
            next((part.language for part in parts if part.language), None),
            tuple(word for part in parts for word in part.words),
        )

    def stream(
        self, chunks: Iterable[FloatArray], sample_rate: int, cancel: Event | None = None
    ) -> Iterator[Transcript]:
        """Yield one transcript per utterance; raise the same errors as `transcribe`."""
        utterances = stream_utterances(chunks, sample_rate, self._min_silence_s, cancel=cancel)
        return self._transcribe(utterances, cancel)

    def _transcribe(
        self, utterances: Iterable[Utterance], cancel: Event | None
    ) -> Iterator[Transcript]:
        for utterance in utterances:
            for transcript in self._client.stream(partial(self._send, utterance), cancel):
                if transcript.text:
                    yield transcript

    async def _send(self, utterance: Utterance, client: AsyncOpenAI) -> AsyncIterator[Transcript]:
        response = await client.audio.transcriptions.create(
            file=("speech.wav", _wav(utterance.samples), "audio/wav"), **self._request
        )
        if not isinstance(getattr(response, "text", None), str):
            raise ValueError("it contains no transcript")
        start_s = utterance.start_s
        words = (
            Word(word.word.strip(), start_s + word.start, start_s + word.end)
            for word in (self._word_times and getattr(response, "words", None)) or ()
        )
        detected = getattr(response, "language", None) or next(
            (one.code for one in getattr(response, "languages", None) or ()), ""
        )
        # whisper-1 returns the name of the language ("english") instead of a code.
        language = self._language or (detected if len(detected) == 2 else None)
        yield Transcript(response.text.strip(), language, tuple(words))


def _wav(samples: FloatArray) -> bytes:
    """Encode samples as a 16-bit mono WAV file at 16 kHz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(to_int16(samples).tobytes())
    return buffer.getvalue()
