"""Synthesise text sentence by sentence while the text is still being written."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Event

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.media.audio_decoding import Resampler
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.phonemes import Phoneme, TimedSpeech, process_timed
from talkinghead.predict.pipeline import in_thread
from talkinghead.predict.source.head.expression.emotion_tags import take_emotion
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.speech.protocols import TextChecker, TextToSpeech, speak_timed, with_emotion
from talkinghead.speech.sentences import split_sentences
from talkinghead.speech.tts.text.text_markup import Pause, PlainText, split_at_breaks
from talkinghead.speech.voice import Voice
from talkinghead.types import FloatArray

_QUEUED_SENTENCES, _QUEUED_CHUNKS = 4, 8
# Chunks are short, so that playback ends soon after a cancellation.
_CHUNK_S = 0.1


@dataclass
class SpokenSentence:
    """A sentence and its time span, in seconds from the start of the speech."""

    text: str
    start_s: float
    end_s: float


class SentenceSynthesizer:
    """A speech synthesiser for a stream of sentences, with threads and bounded queues.

    Args:
        sentences: Sentences in order, which may contain tags of emotions (see `emotion_tags.py`),
            and pauses.
        voice: The text-to-speech voice.
        cancel: Once set, nothing more is read, synthesised or yielded.

    Attributes:
        spoken: The sentences yielded so far; the last one may be incomplete.
    """

    def __init__(
        self,
        sentences: Iterator[str] | Iterator[str | Pause],
        voice: TextToSpeech,
        cancel: Event | None = None,
    ) -> None:
        self._sentences, self._voice, self._cancel = sentences, voice, cancel or Event()
        self.spoken: list[SpokenSentence] = []

    def chunks(self) -> Generator[TimedSpeech]:
        """Yield the speech in short chunks at the voice's sample rate.

        The phonemes of a sentence, if the voice gives them, and the emotion of its tag are in its
        first chunk. This method may be called only once.

        Raises:
            SpeechError: The voice failed; the audio before the failure was yielded.
        """
        rate, cancel = self._voice.sample_rate, self._cancel
        step, num_samples = max(1, round(_CHUNK_S * rate)), 0
        sentences = in_thread(self._sentences, _QUEUED_SENTENCES, "sentences", cancel)
        synthesis = in_thread(self._synthesise(sentences), _QUEUED_CHUNKS, "speech", cancel)
        phonemes: tuple[Phoneme, ...] = ()
        emotion: Emotion | None = None
        with closing(synthesis):
            for sentence, speech in synthesis:
                # Those of an empty chunk belong to the next one.
                audio, phonemes = speech.samples, (*phonemes, *speech.phonemes)
                emotion = speech.emotion or emotion
                for start in range(0, len(audio), step):
                    if cancel.is_set():
                        return
                    chunk, start_s = audio[start : start + step], num_samples / rate
                    num_samples += len(chunk)
                    if sentence is not None:
                        if not self.spoken or self.spoken[-1] is not sentence:
                            sentence.start_s = start_s
                            self.spoken.append(sentence)
                        sentence.end_s = num_samples / rate
                    yield TimedSpeech(chunk, phonemes, emotion)
                    phonemes, emotion = (), None

    def _synthesise(
        self, sentences: Generator[str | Pause]
    ) -> Iterator[tuple[SpokenSentence | None, TimedSpeech]]:
        """Yield the speech of each sentence, and the silence of each pause without a sentence."""
        with closing(sentences):
            follows_speech = False
            changed: Emotion | None = None  # Emotion that has begun since the last speech.
            voice = self._voice
            for tagged in sentences:
                if isinstance(tagged, Pause):
                    yield None, TimedSpeech(self._silence(tagged, follows_speech))
                    continue
                text, emotion = take_emotion(tagged)
                changed = emotion or changed
                if emotion is not None:
                    voice = with_emotion(self._voice, emotion)
                if not text:
                    continue
                if isinstance(tagged, PlainText):
                    text = PlainText(text)
                sentence = SpokenSentence(text, 0.0, 0.0)
                for speech in speak_timed(voice, text, self._cancel):
                    yield sentence, replace(speech, emotion=changed)
                    changed, follows_speech = None, True

    def _silence(self, pause: Pause, follows_speech: bool) -> FloatArray:
        """Return the silence of a pause, without that which the voice adds around it."""
        added_s = 0.0
        if isinstance(self._voice, Voice):
            added_s = self._voice.lead_s + follows_speech * self._voice.pause_s
        num_samples = round((pause.duration_s - added_s) * self._voice.sample_rate)
        return np.zeros(max(0, num_samples), np.float32)


def speak_text(text: str, voice: TextToSpeech, language: str | None = None) -> SpeechStream:
    """Return the speech of a text as a stream for `LipSyncPredictor.render` and `predict`.

    Args:
        text: Text of any length; the markup of SSML, HTML and Markdown is not spoken (see
            `plain_text`), and breaks of SSML are pauses.
        voice: The text-to-speech voice.
        language: Two-letter code of the text's language, for splitting it into sentences.

    Raises:
        UsageError: The text is empty, or the voice cannot speak it.
    """
    if not text.strip():
        raise UsageError("the text is empty: give some words to speak")
    if isinstance(voice, TextChecker):
        voice.check_text(text)
    cancel = Event()
    synthesizer = SentenceSynthesizer(_split_text(text, language), voice, cancel)
    return SpeechStream(synthesizer.chunks(), voice.sample_rate, cancel)


def _split_text(text: str, language: str | None) -> Iterator[PlainText | Pause]:
    """Yield the sentences of a text, and its pauses."""
    for part in split_at_breaks(text):
        if isinstance(part, Pause):
            yield part
        else:
            # The voice must not take tags that the text quotes for markup.
            yield from map(PlainText, split_sentences([part], language))


def stream_sentences(
    text_pieces: Iterable[str],
    voice: TextToSpeech,
    *,
    sample_rate: int | None = None,
    language: str | None = None,
    cancel: Event | None = None,
) -> Generator[FloatArray]:
    """Yield the samples of `stream_timed_sentences`, which has the same arguments.

    Yields:
        float32 [num_samples] in [-1, 1], mono.

    Example:
        >>> for chunk in stream_sentences(["Hello. ", "How are you?"], Voice(Piper())):
        ...     player.write(chunk)
    """
    speech = stream_timed_sentences(
        text_pieces, voice, sample_rate=sample_rate, language=language, cancel=cancel
    )
    with closing(speech):
        for chunk in speech:
            yield chunk.samples


def stream_timed_sentences(
    text_pieces: Iterable[str],
    voice: TextToSpeech,
    *,
    sample_rate: int | None = None,
    language: str | None = None,
    cancel: Event | None = None,
) -> Generator[TimedSpeech]:
    """Yield speech for text that is still being written, in chunks for `RealtimeLipSync.push`.

    Args:
        text_pieces: Text in pieces of any length, such as `LanguageModel.reply` yields.
        voice: The text-to-speech voice; `talkinghead.speech.voice.Voice` adds pauses and a constant
            loudness.
        sample_rate: Rate of the chunks in Hz, such as `RealtimeLipSync.sample_rate`; None for the
            voice's own.
        language: Two-letter code of the text's language, for splitting it into sentences.
        cancel: Ends the stream early, from any thread.

    Yields:
        Chunks of speech with the phonemes that the voice gives.

    Raises:
        SpeechError: The voice failed; the audio before the failure was yielded.

    Example:
        >>> for chunk in stream_timed_sentences(["Hello. ", "How are you?"], Voice(Piper()),
        ...                                     sample_rate=stream.sample_rate):
        ...     frames = stream.push(chunk)
    """
    sample_rate = sample_rate or voice.sample_rate
    resampler = Resampler(voice.sample_rate, sample_rate)
    synthesizer = SentenceSynthesizer(split_sentences(text_pieces, language), voice, cancel)
    with closing(synthesizer.chunks()) as chunks:
        yield from process_timed(chunks, resampler.stream, voice.sample_rate, sample_rate)
