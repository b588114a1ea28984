"""Alignment of English speech with its text, for voices that do not report their phonemes.

Paper: Huggins-Daines et al., "Pocketsphinx: A Free, Real-Time Continuous Speech Recognition System
for Hand-Held Devices", ICASSP 2006.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np

from talkinghead.errors import DependencyError
from talkinghead.media.audio_decoding import Resampler
from talkinghead.media.audio_samples import to_int16
from talkinghead.predict.audio.phonemes import Phoneme, TimedSpeech
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.speech.protocols import TextChecker, TextToSpeech, with_emotion
from talkinghead.types import FloatArray

log = logging.getLogger(__name__)

_SAMPLE_RATE, _FRAMES_PER_SECOND = 16_000, 100
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
# IPA symbols of PocketSphinx's phones. A diphthong is divided into two phonemes of equal length.
_IPA = {
    **{"AA": "\u0251", "AE": "\u00e6", "AH": "\u028c", "AO": "\u0254", "AW": "a \u028a"},
    **{"AY": "a \u026a", "B": "b", "CH": "t\u0283", "D": "d", "DH": "\u00f0", "EH": "\u025b"},
    **{"ER": "\u025d", "EY": "e \u026a", "F": "f", "G": "\u0261", "HH": "h", "IH": "\u026a"},
    **{"IY": "i", "JH": "d\u0292", "K": "k", "L": "l", "M": "m", "N": "n", "NG": "\u014b"},
    **{"OW": "o \u028a", "OY": "\u0254 \u026a", "P": "p", "R": "\u0279", "S": "s", "SH": "\u0283"},
    **{"T": "t", "TH": "\u03b8", "UH": "\u028a", "UW": "u", "V": "v", "W": "w", "Y": "j"},
    **{"Z": "z", "ZH": "\u0292"},
}


class PhonemeAligner:
    """An aligner of English speech with its text by PocketSphinx, which runs offline.

    Safe for concurrent callers, who take turns. The model is loaded in the background.

    Raises:
        DependencyError: pocketsphinx is missing.
    """

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise DependencyError(
                "aligning speech with its text needs the package pocketsphinx: pip install "
                "'talkinghead[speech]', or set voice.align=false"
            ) from error
        folder = Path(pocketsphinx.get_model_path()) / "en-us"
        pool = ThreadPoolExecutor(1, "align")
        self._decoder: Future[Any] = pool.submit(
            pocketsphinx.Decoder,
            hmm=str(folder / "en-us"),
            dict=str(folder / "cmudict-en-us.dict"),
            lm=None,
            samprate=_SAMPLE_RATE,
            loglevel="FATAL",
        )
        pool.shutdown(wait=False)
        self._lock = Lock()

    def align(self, samples: FloatArray, sample_rate: int, text: str) -> tuple[Phoneme, ...]:
        """Return the phonemes of one sentence.

        Without an alignment, such as for a text with numbers, with words that are not in the
        English dictionary or with words that are not spoken, nothing is returned, which is logged.

        Args:
            samples: float32 [num_samples] in [-1, 1].
            sample_rate: sample rate in Hz.
            text: the text that is spoken.
        """
        words = [word.lower().replace("\u2019", "'") for word in _WORD.findall(text)]
        decoder = self._decoder.result()
        with self._lock:
            unknown = [word for word in words if decoder.lookup_word(word) is None]
            if unknown or not words or not len(samples):
                log.info("no phonemes for the lips: unknown words %s", ", ".join(unknown) or text)
                return ()
            resampled = np.concatenate(list(Resampler(sample_rate, _SAMPLE_RATE).stream([samples])))
            pcm = to_int16(resampled).tobytes()
            try:
                # The first pass finds the words, the second one the phonemes of the words.
                decoder.set_align_text(" ".join(words))
                _decode(decoder, pcm)
                decoder.set_alignment()
                _decode(decoder, pcm)
                return tuple(_phonemes(decoder.get_alignment()))
            except RuntimeError as error:
                log.info("no phonemes for the lips: %r cannot be aligned (%s)", text, error)
                return ()


class AlignedTextToSpeech:
    """A voice whose speech is aligned with its text, sentence by sentence.

    Args:
        tts: The voice.
        aligner: The aligner.
    """

    def __init__(self, tts: TextToSpeech, aligner: PhonemeAligner) -> None:
        self._tts, self._aligner = tts, aligner
        self.sample_rate = tts.sample_rate

    def check_text(self, text: str) -> None:
        """Raise a `UsageError` if the voice cannot speak a text."""
        if isinstance(self._tts, TextChecker):
            self._tts.check_text(text)

    def with_emotion(self, emotion: Emotion) -> AlignedTextToSpeech:
        """Return the same voice with an emotion, if it has a style for it."""
        return AlignedTextToSpeech(with_emotion(self._tts, emotion), self._aligner)

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        """Yield the speech of a text without alignment."""
        return self._tts.speak(text, cancel)

    def speak_timed(self, text: str, cancel: Event | None = None) -> Iterator[TimedSpeech]:
        """Yield the speech of a text as one chunk, with its phonemes."""
        chunks = list(self._tts.speak(text, cancel))
        if chunks and not (cancel is not None and cancel.is_set()):
            samples = np.concatenate(chunks)
            yield TimedSpeech(samples, self._aligner.align(samples, self.sample_rate, text))


def _decode(decoder: Any, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, no_search=False, full_utt=True)
    decoder.end_utt()


def _phonemes(alignment: Any) -> Iterator[Phoneme]:
    for phone in (phone for word in alignment for phone in word):
        symbols = _IPA.get(phone.name, "").split()
        step_s = phone.duration / _FRAMES_PER_SECOND / max(1, len(symbols))
        start_s = phone.start / _FRAMES_PER_SECOND
        for index, symbol in enumerate(symbols):
            yield Phoneme(symbol, start_s + index * step_s, start_s + (index + 1) * step_s)
