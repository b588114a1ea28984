"""Sentences spoken as they come: each while the next is being written."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Event

from talkinghead.errors import UsageError
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.pipeline import in_thread
from talkinghead.speech.protocols import TextToSpeech
from talkinghead.speech.sentences import cut_sentences
from talkinghead.types import FloatArray

_WAITING_SENTENCES, _WAITING_CHUNKS = 4, 8
# Whoever cancels hears no more than this of what was made already.
_PIECE_S = 0.1


@dataclass
class SpokenSentence:
    """A sentence, and when it is heard: seconds from the beginning of the speech."""

    text: str
    start_s: float
    end_s: float


class SpokenText:
    """The speech of sentences, which are written and spoken in threads of their own.

    Args:
        sentences: as they come.
        voice: who speaks.
        cancel: once it is set nothing more is written, spoken or given.

    Attributes:
        spoken: what was heard so far; the last sentence perhaps not to its end.
    """

    def __init__(
        self, sentences: Iterator[str], voice: TextToSpeech, cancel: Event | None = None
    ) -> None:
        self._sentences, self._voice, self._cancel = sentences, voice, cancel or Event()
        self.spoken: list[SpokenSentence] = []

    def chunks(self) -> Generator[FloatArray]:
        """The speech, once: float32 [num_samples] in [-1, 1] at the voice's rate.

        Raises:
            SpeechError: the voice failed; what it said before was given.
        """
        rate, cancel = self._voice.sample_rate, self._cancel
        step, heard = max(1, round(_PIECE_S * rate)), 0
        sentences = in_thread(self._sentences, _WAITING_SENTENCES, "write", cancel)
        with closing(in_thread(self._speak(sentences), _WAITING_CHUNKS, "speak", cancel)) as spoken:
            for number, text, chunk in spoken:
                for start in range(0, len(chunk), step):
                    if cancel.is_set():
                        return
                    if number == len(self.spoken):
                        self.spoken.append(SpokenSentence(text, heard / rate, heard / rate))
                    piece = chunk[start : start + step]
                    heard += len(piece)
                    self.spoken[-1].end_s = heard / rate
                    yield piece

    def _speak(self, sentences: Generator[str]) -> Iterator[tuple[int, str, FloatArray]]:
        """Each chunk with its sentence, and how many were spoken before that."""
        number = 0
        with closing(sentences):
            for text in sentences:
                silent = True
                for chunk in self._voice.speak(text, self._cancel):
                    if len(chunk):
                        yield number, text, chunk
                        silent = False
                number += not silent


def speak_text(text: str, voice: TextToSpeech, language: str | None = None) -> SpeechStream:
    """A text's speech, sentence by sentence, for `LipSyncPredictor.render` and `predict`.

    Args:
        text: of any length.
        voice: who speaks.
        language: the text's, a two-letter code.

    Raises:
        UsageError: the text is empty.
    """
    if not text.strip():
        raise UsageError("the text is empty: give some words to speak")
    cancel = Event()
    spoken = SpokenText(cut_sentences([text], language), voice, cancel)
    return SpeechStream(spoken.chunks(), voice.sample_rate, cancel)
