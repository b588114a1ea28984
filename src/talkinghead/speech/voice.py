"""A voice that suits a face: one loudness, one rate, and true silence where nothing is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Event

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.media.audio_decoding import Resampler
from talkinghead.speech.loudness import DEFAULT_LUFS, Loudness
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.types import FloatArray


class Voice:
    """Speaks sentence by sentence: a stream gives what the whole gives, cut at the same sentences.

    Each sentence is silence, its sound, and silence. The silence is digital (zeros), for what a
    voice breathes between its words may move a mouth.

    Args:
        tts: who speaks.
        sample_rate: of what `speak` gives, in Hz; by default the voice's own.
        loudness_lufs: see `Loudness`; None leaves the voice as it is.
        peak_dbfs: no sample is beyond it, in dB of full scale.
        lead_s: silence before a sentence, so that its first phoneme is not cut and the mouth opens
            from rest.
        pause_s: silence after it, in which the mouth closes. With the next sentence's `lead_s` it
            is the pause between the two.

    Raises:
        DependencyError: pyloudnorm is missing.
        UsageError: an option is out of its range.
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
        self._loudness = (
            None if loudness_lufs is None else Loudness(self.sample_rate, loudness_lufs, peak_dbfs)
        )

    def speak(self, sentence: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """A sentence, spoken: float32 [num_samples] in [-1, 1], mono, piece by piece.

        Nothing where it holds nothing that can be said. Once `cancel` is set it ends at the next
        piece.

        Raises:
            SpeechError: the voice failed, or took longer than its timeout.
        """
        chunks: Iterable[FloatArray] = self._resampled(self.tts.speak(sentence, cancel))
        if self._loudness is not None:
            chunks = self._loudness.sentence(chunks)
        spoken = False
        for chunk in chunks:
            if cancel is not None and cancel.is_set():
                return
            if not spoken:
                yield self._lead.copy()
            spoken = True
            yield chunk
        if spoken and not (cancel is not None and cancel.is_set()):
            yield self._pause.copy()

    def _resampled(self, chunks: Iterator[FloatArray]) -> Iterator[FloatArray]:
        resampler = Resampler(self.tts.sample_rate, self.sample_rate)
        for chunk in chunks:
            if len(chunk):
                yield from resampler.push(np.nan_to_num(chunk))
        yield from resampler.flush()
