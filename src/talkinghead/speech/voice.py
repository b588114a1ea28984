"""Post-processing of a text-to-speech voice: loudness, sample rate, and pauses."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.media.audio_decoding import Resampler
from talkinghead.speech.loudness import DEFAULT_LUFS, LoudnessNormalizer
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.types import FloatArray


class Voice:
    """A text-to-speech voice with constant loudness, a given sample rate and silent pauses.

    Each sentence is preceded and followed by digital silence (zeros): breath noise of a synthetic
    voice could move the mouth. A `Voice` is itself a `TextToSpeech`.

    Args:
        tts: The text-to-speech provider.
        sample_rate: Sample rate of the output in Hz; None uses the provider's own.
        loudness_lufs: Target loudness in LUFS (EBU R 128); None leaves the loudness unchanged.
        peak_dbfs: Maximum sample peak in dB relative to full scale.
        lead_s: Silence in seconds before a sentence, so that its first phoneme is not cut off.
        pause_s: Silence in seconds after a sentence, during which the mouth closes.

    Raises:
        DependencyError: pyloudnorm is missing.
        UsageError: An option is out of range.

    Example:
        >>> voice = Voice(Piper(), sample_rate=16_000)
        >>> chunks = list(voice.speak("Hello."))
    """

    def __init__(
        self,
        tts: TextToSpeech,
        *,
        sample_rate: int | None = None,
        loudness_lufs: float | None = DEFAULT_LUFS,
        peak_dbfs: float = -1.0,
        lead_s: float = 0.1,
        pause_s: float = 0.25,
    ) -> None:
        self.tts = tts
        self.sample_rate = tts.sample_rate if sample_rate is None else sample_rate
        if not (self.sample_rate > 0 and 0 <= lead_s <= 10 and 0 <= pause_s <= 10):
            raise UsageError(
                f"sample_rate={self.sample_rate}, lead_s={lead_s}, pause_s={pause_s}: expected a "
                "rate above 0 Hz and 0 to 10 seconds of silence"
            )
        self._lead, self._pause = (
            np.zeros(round(seconds * self.sample_rate), np.float32) for seconds in (lead_s, pause_s)
        )
        self._normalizer = None
        if loudness_lufs is not None:
            self._normalizer = LoudnessNormalizer(self.sample_rate, loudness_lufs, peak_dbfs)

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """Yield the speech of one sentence between two silences; see `TextToSpeech.speak`."""
        spoken = (np.nan_to_num(chunk) for chunk in self.tts.speak(text, cancel) if len(chunk))
        chunks = Resampler(self.tts.sample_rate, self.sample_rate).stream(spoken)
        if self._normalizer is not None:
            chunks = self._normalizer.normalize(chunks)
        cancel, has_spoken = cancel or Event(), False
        for chunk in chunks:
            if cancel.is_set():
                return
            if not has_spoken:
                yield self._lead.copy()
            has_spoken = True
            yield chunk
        if has_spoken and not cancel.is_set():
            yield self._pause.copy()
