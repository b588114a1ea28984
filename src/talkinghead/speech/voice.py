"""Post-processing of a text-to-speech voice: loudness, sample rate, and pauses."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from itertools import chain, takewhile
from threading import Event
from typing import Annotated

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.media.audio_decoding import Resampler
from talkinghead.media.audio_samples import to_mono_float32
from talkinghead.predict.audio.phonemes import TimedSpeech, process_timed
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.speech.loudness import DEFAULT_LUFS, LoudnessNormalizer
from talkinghead.speech.phoneme_alignment import AlignedTextToSpeech, PhonemeAligner
from talkinghead.speech.protocols import (
    TextChecker,
    TextToSpeech,
    gives_phonemes,
    speak_timed,
    with_emotion,
)
from talkinghead.types import FloatArray
from talkinghead.value_rules import PositiveInt, Range

log = logging.getLogger(__name__)


class Voice:
    """A text-to-speech voice with constant loudness, a given sample rate and silent pauses.

    Each sentence is preceded and followed by digital silence (zeros): breath noise of a synthetic
    voice could move the mouth. A `Voice` is itself a `TextToSpeech`. It is safe for concurrent
    callers if its provider is.

    Args:
        tts: The text-to-speech provider.
        sample_rate: Sample rate of the output in Hz; None uses the provider's own.
        loudness_lufs: Target loudness in LUFS (EBU R 128); None leaves the loudness unchanged.
        peak_dbfs: Maximum sample peak in dB relative to full scale.
        lead_s: Silence in seconds before a sentence, so that its first phoneme is not cut off.
        pause_s: Silence in seconds after a sentence, during which the mouth closes.
        align: Align the speech of a provider that gives no phonemes with its English text, so that
            the lips close on p, b and m. Each sentence is then synthesised as a whole before its
            first audio is available.

    Attributes:
        lead_s, pause_s: The silences in whole samples, in seconds.

    Raises:
        DependencyError: pyloudnorm is missing, or pocketsphinx for `align`.
        UsageError: An option is out of range.

    Example:
        >>> voice = Voice(Piper(), sample_rate=16_000)
        >>> chunks = list(voice.speak("Hello."))
    """

    def __init__(
        self,
        tts: TextToSpeech,
        *,
        sample_rate: PositiveInt | None = None,
        loudness_lufs: Annotated[float, Range(-70, 0)] | None = DEFAULT_LUFS,
        peak_dbfs: Annotated[float, Range(-60, 0)] = -1.0,
        lead_s: Annotated[float, Range(0, 10)] = 0.1,
        pause_s: Annotated[float, Range(0, 10)] = 0.25,
        align: bool = False,
    ) -> None:
        if not gives_phonemes(tts):
            if align:
                tts = AlignedTextToSpeech(tts, PhonemeAligner())
            else:
                log.info(
                    "the voice gives no phonemes, so the lips follow its audio only; "
                    "voice.align=true aligns the audio with an English text"
                )
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
        self.lead_s, self.pause_s = (len(s) / self.sample_rate for s in (self._lead, self._pause))
        self._normalizer = None
        if loudness_lufs is not None:
            self._normalizer = LoudnessNormalizer(self.sample_rate, loudness_lufs, peak_dbfs)

    def check_text(self, text: str) -> None:
        """Raise a `UsageError` if the provider cannot speak a text."""
        if isinstance(self.tts, TextChecker):
            self.tts.check_text(text)

    def with_emotion(self, emotion: Emotion) -> Voice:
        """Return the same voice with an emotion, if the provider has a style for it."""
        voice = copy.copy(self)
        voice.tts = with_emotion(self.tts, emotion)
        return voice

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """Yield the speech of one sentence between two silences; see `TextToSpeech.speak`."""
        for speech in self.speak_timed(text, cancel):
            yield speech.samples

    def speak_timed(self, text: str, cancel: Event | None = None) -> Iterator[TimedSpeech]:
        """Yield the speech of `speak` with the phonemes that the provider gives."""
        cancel = cancel or Event()
        speech = process_timed(
            speak_timed(self.tts, text, cancel),
            self._process,
            self.tts.sample_rate,
            self.sample_rate,
            delay_s=self.lead_s,
        )
        yield from takewhile(lambda _: not cancel.is_set(), speech)

    def _process(self, chunks: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Resample and normalise the chunks, and add the silences."""
        converted = (to_mono_float32(chunk, "the speech of the voice") for chunk in chunks)
        spoken = filter(len, converted)
        chunks = Resampler(self.tts.sample_rate, self.sample_rate).stream(spoken)
        if self._normalizer is not None:
            chunks = self._normalizer.normalize(chunks)
        return self._with_pauses(chunks)

    def _with_pauses(self, chunks: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """Yield the chunks between two silences; yield nothing if there are no chunks."""
        first = next(chunks, None)
        if first is not None:
            # Phonemes and emotions are in the first chunk, so it must not be empty.
            yield from filter(len, chain([self._lead.copy(), first], chunks, [self._pause.copy()]))
