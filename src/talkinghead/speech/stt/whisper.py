"""Speech to text with Whisper in this process, run by faster-whisper without a network.

Paper: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022,
arXiv:2212.04356.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event

from talkinghead.errors import SpeechError, UsageError
from talkinghead.runtime.whisper_encoder import COMPUTE_TYPES, load_whisper
from talkinghead.speech.protocols import Transcript, Word
from talkinghead.speech.voice_activity import SAMPLE_RATE, Utterance, stream_utterances
from talkinghead.types import AudioClip, FloatArray
from talkinghead.value_rules import PositiveFloat, PositiveInt

# Clips are split only at long silences: Whisper pads short parts to 15 s, so many short parts take
# more time than a long one.
_CLIP_SILENCE_S = 2.0
# Limit of the tokens of an utterance, so that a repetition, which Whisper detects and decodes
# again, takes little time. Speech has 5 tokens per second in English, up to 20 in other languages.
_MIN_TOKENS, _TOKENS_PER_S, _MAX_TOKENS = 20, 25, 400


class Whisper:
    """A Whisper speech recogniser that skips silence and noise detected by Silero VAD.

    Safe for concurrent callers.

    Args:
        model: "packaged" (the base model of the `offline` extra), a folder written by
            ct2-transformers-converter, or a name such as "small" or "large-v3", which is downloaded
            once from the Hugging Face hub.
        language: Two-letter code; None detects the language, which doubles the time.
        device: "cpu", or "cuda" (needs cuBLAS of CUDA 12).
        compute_type: CTranslate2 number format, such as "int8"; None is int8 on a CPU and float16
            on CUDA.
        beam_size: Number of hypotheses of the beam search; 1 is fastest.
        num_threads: Number of CPU threads; None is OMP_NUM_THREADS, or up to four.
        min_silence_s: Silence in seconds that ends an utterance of a stream.
        timeout_s: Maximum time in seconds for each part of at most 28 s, checked after each
            segment.
        word_timestamps: Return the times of the words, which takes longer.

    Raises:
        DependencyError: faster-whisper or the model is missing, or the model cannot be used.
        UsageError: The model does not support the language, or an option is out of range.
    """

    def __init__(
        self,
        model: str | Path = "packaged",
        *,
        language: str | None = None,
        device: str = "cpu",
        compute_type: str | None = None,
        beam_size: PositiveInt = 5,
        num_threads: PositiveInt | None = None,
        min_silence_s: PositiveFloat = 0.5,
        timeout_s: float = 60.0,
        word_timestamps: bool = True,
    ) -> None:
        if device not in COMPUTE_TYPES or beam_size < 1 or min_silence_s <= 0 or timeout_s <= 0:
            raise UsageError(
                f"stt=whisper got device={device}, beam_size={beam_size}, "
                f"min_silence_s={min_silence_s}, timeout_s={timeout_s}; expected cpu or cuda, and "
                "numbers above zero"
            )
        self._model = load_whisper(model, device, compute_type, num_threads)
        if language is not None and language not in self._model.supported_languages:
            raise UsageError(
                f"stt.language={language}: the model {model} supports "
                f"{', '.join(self._model.supported_languages)}"
            )
        self._language, self._beam_size = language, beam_size
        self._word_timestamps = word_timestamps
        self._min_silence_s, self._timeout_s = min_silence_s, timeout_s

    def transcribe(self, audio: AudioClip, cancel: Event | None = None) -> Transcript:
        """Transcribe a clip; the language of the first part is used for all parts."""
        samples, step = audio.samples, audio.sample_rate
        seconds = (samples[start : start + step] for start in range(0, len(samples), step))
        language, parts = self._language, []
        for utterance in stream_utterances(
            seconds, audio.sample_rate, _CLIP_SILENCE_S, cancel=cancel
        ):
            part = self._transcribe(utterance, language, cancel)
            parts.append(part)
            language = language or part.language
        text = " ".join(part.text for part in parts if part.text)
        return Transcript(text, language, tuple(word for part in parts for word in part.words))

    def stream(
        self, chunks: Iterable[FloatArray], sample_rate: int, cancel: Event | None = None
    ) -> Iterator[Transcript]:
        """Yield one transcript per utterance; detect each utterance's language if not given."""
        for utterance in stream_utterances(chunks, sample_rate, self._min_silence_s, cancel=cancel):
            transcript = self._transcribe(utterance, self._language, cancel)
            if transcript.text:
                yield transcript

    def _transcribe(
        self, utterance: Utterance, language: str | None, cancel: Event | None
    ) -> Transcript:
        began_s, start_s, text, words = time.monotonic(), utterance.start_s, "", []
        duration_s = len(utterance.samples) / SAMPLE_RATE
        try:
            segments, info = self._model.transcribe(
                utterance.samples,
                language=language,
                beam_size=self._beam_size,
                word_timestamps=self._word_timestamps,
                condition_on_previous_text=False,
                max_new_tokens=min(_MAX_TOKENS, _MIN_TOKENS + int(_TOKENS_PER_S * duration_s)),
            )
            for segment in segments:
                text += segment.text
                words += [
                    Word(word.word.strip(), start_s + float(word.start), start_s + float(word.end))
                    for word in segment.words or ()
                ]
                if cancel is not None and cancel.is_set():
                    break
                if time.monotonic() - began_s > self._timeout_s:
                    raise SpeechError(
                        f"stt=whisper had not transcribed {duration_s:.1f} s of speech after "
                        f"timeout_s={self._timeout_s:g}; raise timeout_s, or choose a smaller "
                        f"model or beam_size=1. Text so far: {text.strip()!r}"
                    )
        except RuntimeError as error:  # CTranslate2 lacks memory or a CUDA library.
            raise SpeechError(f"stt=whisper failed: {error}") from error
        return Transcript(text.strip(), info.language, tuple(words))
