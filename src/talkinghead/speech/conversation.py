"""Conversations: transcribe a question, generate a reply, and render a video of the reply."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import numpy as np

from talkinghead.concurrency import ExclusiveUse
from talkinghead.errors import MediaError, SpeechError, TalkingHeadError, UsageError
from talkinghead.media.audio_samples import to_mono_float32
from talkinghead.media.reader import stream_audio
from talkinghead.paths import output_file
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.predict.avatar import Avatar
from talkinghead.predict.output.mux import refuse_overwriting
from talkinghead.predict.pipeline import in_thread
from talkinghead.predict.prediction import RenderReport
from talkinghead.predict.source.head.expression.emotion_tags import EMOTION_TAGS_PROMPT
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.progress_bar import progress_bar
from talkinghead.speech.protocols import (
    LanguageModel,
    Message,
    PreparingModel,
    SpeechToText,
    TextToSpeech,
    Transcript,
    speak_timed,
    with_emotion,
)
from talkinghead.speech.sentence_speech import SentenceSynthesizer
from talkinghead.speech.sentences import limit_length, split_sentences
from talkinghead.speech.turn_report import TurnReport, TurnState, write_transcript
from talkinghead.types import AudioClip, FloatArray
from talkinghead.value_rules import NonNegativeInt, PositiveFloat, PositiveInt

log = logging.getLogger(__name__)

DEFAULT_SYSTEM_PROMPT = (
    "You are talking with somebody face to face. Answer in one to three short sentences of plain "
    "spoken words, without lists, markup or emoji."
)
_SAMPLE_RATE = 16_000
# Questions with a peak of -50 dBFS or less contain no speech and are not transcribed.
_SILENCE_PEAK = 10 ** (-50 / 20)


@dataclass(eq=False)
class _Turn(TurnState):
    interrupted: bool = False
    error: TalkingHeadError | None = None


def previous_messages(
    system_prompt: str | None,
    history: Sequence[Message],
    max_history: NonNegativeInt,
    emotion_tags: bool = False,
) -> list[Message]:
    """Return the messages before a question: the system prompt and up to `max_history` messages.

    With `emotion_tags`, the system prompt also asks for tags of emotions.

    Old messages are left out in steps of half of `max_history`, because a local language model
    processes only what follows the part that is equal to its previous request.
    """
    prompts = [system_prompt, EMOTION_TAGS_PROMPT if emotion_tags else None]
    prompt = " ".join(prompt for prompt in prompts if prompt)
    system = [Message("system", prompt)] if prompt else []
    step = max(2, max_history // 4 * 2)
    num_excess = max(0, len(history) - max_history)
    return [*system, *history[math.ceil(num_excess / step) * step :]]


def prepare_in_thread(llm: LanguageModel | None, messages: list[Message]) -> None:
    """Let a language model that can do so process the messages before the next question."""
    if isinstance(llm, PreparingModel):
        Thread(target=llm.prepare, args=(messages,), name="prepare", daemon=True).start()


class Conversation:
    """A conversation with an avatar: question-and-answer turns with a shared history.

    One caller at a time: a second turn raises a `UsageError`. Conversations may share an avatar and
    providers. The stages run in threads with short queues between them: each sentence is
    synthesised while the language model writes the next, and rendering of the video starts with the
    first audio.

    Args:
        avatar: Avatar that gives the answers.
        llm: Language model that writes the replies.
        voice: Voice of the replies; `Voice` adds pauses and a constant loudness.
        stt: Speech recognition; None is enough for typed questions.
        system_prompt: Instructions to the language model, sent before the history; None sends none.
        language: Two-letter code of the replies, for splitting them into sentences; None uses the
            language of the question.
        max_reply_chars: Maximum length of a reply in characters (English: about 15 per second); it
            ends with the last sentence that fits.
        max_history: Maximum number of earlier messages sent to the language model.
        emotion_tags: Ask the language model to tag sentences with emotions, which the face shows.
            Tags in a reply are applied and not spoken in any case.
        max_question_s: Maximum length of a spoken question in seconds; a longer one is refused.
        no_speech_reply: Reply to a recording without speech; the language model is not called.

    Attributes:
        history: Earlier questions and spoken replies, without the system prompt.

    Example:
        >>> avatar = LipSyncPredictor.from_checkpoint("default").avatar("photo.jpg")
        >>> conversation = Conversation(avatar, Echo(), Voice(Piper()), Whisper())
        >>> report = conversation.answer("question.wav", "answer.mp4")
        >>> report.question.text, report.video.path
    """

    def __init__(
        self,
        avatar: Avatar,
        llm: LanguageModel,
        voice: TextToSpeech,
        stt: SpeechToText | None = None,
        *,
        system_prompt: str | None = DEFAULT_SYSTEM_PROMPT,
        language: str | None = None,
        max_reply_chars: PositiveInt = 1000,
        max_history: NonNegativeInt = 20,
        emotion_tags: bool = False,
        max_question_s: PositiveFloat = 120.0,
        no_speech_reply: str = "Sorry, I did not hear anything. Could you say that again?",
    ) -> None:
        self.avatar = avatar
        self.history: list[Message] = []
        self._llm, self._voice, self._stt = llm, voice, stt
        self._system_prompt, self._language = system_prompt, language
        self._max_reply_chars, self._max_history = max_reply_chars, max_history
        self._emotion_tags = emotion_tags
        self._max_question_s, self._no_speech_reply = max_question_s, no_speech_reply
        # A provider may be unsafe for concurrent callers, and a cancelled stage may still use it.
        self._stt_lock, self._llm_lock, self._voice_lock = Lock(), Lock(), Lock()
        self._use = ExclusiveUse(
            "the conversation",
            "wait for its answer, call interrupt() first, or make one Conversation per caller",
        )
        self._turn = _Turn()

    def interrupt(self) -> None:
        """Stop the current turn, if there is one; call this method from another thread.

        The speech before the interruption is kept in the video, the transcript and the history.
        """
        self._turn.interrupted = True
        self._turn.cancel.set()

    def answer(
        self, audio: str | Path | AudioClip, output: str | Path, **options: Any
    ) -> TurnReport:
        """Answer a spoken question with a video, and write a transcript to the same folder.

        Args:
            audio: A file with audio, or mono speech. A question without speech is answered with
                `no_speech_reply`.
            output: The MP4 file to write. A `.srt` file with the reply's sentences and a `.json`
                file with the whole turn are written beside it.
            **options: Options of `LipSyncPredictor.render`.

        Raises:
            MediaError: The question cannot be read, or is too long.
            SpeechError: A provider failed before anything was spoken. Later failures are in the
                report.
            UsageError: There is no `stt`, or the output would overwrite an input.
        """
        if self._stt is None:
            raise UsageError("a spoken question needs speech recognition: give an stt")
        refuse_overwriting(output_file(output), audio)
        with self._new_turn() as turn:
            stage = self._transcribe(self._stt, self._read(audio), turn)
            with closing(in_thread(stage, 1, "transcribe", turn.cancel)) as transcripts:
                transcript = next(transcripts, None)
            if transcript is None or turn.interrupted:
                return TurnReport(Transcript(""), (), turn.times, None, interrupted=True)
            turn.mark("transcript_s")
            return self._reply(turn, transcript, output, options)

    def answer_text(self, text: str, output: str | Path, **options: Any) -> TurnReport:
        """Answer a typed question with a video and a transcript; see `answer`.

        Raises:
            SpeechError: A provider failed before anything was spoken.
            UsageError: The text is empty.
        """
        if not text.strip():
            raise UsageError("the question is empty: type something")
        with self._new_turn() as turn:
            turn.times.transcript_s = 0.0
            return self._reply(turn, Transcript(text.strip(), self._language), output, options)

    @contextmanager
    def _new_turn(self) -> Iterator[_Turn]:
        """Start a turn, and stop all stages of the turn when the context exits."""
        with self._use:
            turn = self._turn = _Turn()
            try:
                yield turn
            finally:
                turn.cancel.set()

    def _reply(
        self, turn: _Turn, question: Transcript, output: str | Path, options: dict[str, Any]
    ) -> TurnReport:
        log.info("question: %s", question.text or "(silence)")
        language = self._language or question.language
        pieces = self._generate(turn, question.text)
        voice = _TurnVoice(self._voice, self._voice_lock, turn)
        synthesizer = SentenceSynthesizer(self._sentences(pieces, language), voice, turn.cancel)
        chunks = _chunks_until_failure(synthesizer, turn)
        speech = SpeechStream(chunks, self._voice.sample_rate, turn.cancel)
        report_progress = options.pop("progress", None)
        video: RenderReport | None = None

        def progress(done: int, total: int) -> None:
            turn.mark("first_frame_s")
            show(done, total)
            if report_progress:
                report_progress(done, total)

        try:
            with progress_bar(Path(output).name, log) as show:
                video = self.avatar.predictor.render(
                    self.avatar, speech, output, progress=progress, **options
                )
        except MediaError:
            # This error is expected if the turn was interrupted before any speech was synthesised.
            if not turn.interrupted or synthesizer.spoken:
                raise
        turn.mark("end_s")
        spoken = tuple(synthesizer.spoken)
        report = TurnReport(question, spoken, turn.times, video, turn.interrupted, turn.error)
        reply = " ".join(sentence.text for sentence in spoken)
        log.info("answer%s: %s", " (interrupted)" if report.interrupted else "", reply)
        log.info("after the question: %s", report.times)
        if question.text and reply:
            self.history += [Message("user", question.text), Message("assistant", reply)]
        if video is not None:
            write_transcript(report, video.path)
            log.info("%s: %.2f s", video.path, video.duration_s)
        if report.error is not None:
            log.error("the answer ended early: %s", report.error)
        return report

    def _read(self, audio: str | Path | AudioClip) -> AudioClip:
        """Read the question; raise a MediaError as soon as the maximum length is exceeded."""
        if isinstance(audio, AudioClip):
            samples, name = to_mono_float32(audio.samples, "the question"), "the question"
            rate, chunks = audio.sample_rate, iter([samples])
        else:
            rate, chunks, name = _SAMPLE_RATE, stream_audio(audio, _SAMPLE_RATE), str(audio)
        read: list[FloatArray] = []
        for chunk in chunks:
            read.append(chunk)
            if sum(map(len, read)) > self._max_question_s * rate:
                raise MediaError(
                    f"{name} is longer than {self._max_question_s:g} s, the maximum: "
                    "give a shorter question, or raise max_question_s"
                )
        return AudioClip(np.concatenate(read), rate)

    def _transcribe(self, stt: SpeechToText, clip: AudioClip, turn: _Turn) -> Iterator[Transcript]:
        if not (np.abs(clip.samples) > _SILENCE_PEAK).any():
            yield Transcript("")
            return
        with self._stt_lock:
            yield stt.transcribe(clip, turn.cancel)

    def _generate(self, turn: _Turn, question: str) -> Generator[str]:
        """Yield the text of the reply; if the language model fails, store the error in `turn`."""
        if not question:
            yield self._no_speech_reply
            return
        messages = previous_messages(
            self._system_prompt, self.history, self._max_history, self._emotion_tags
        )
        with self._llm_lock:
            try:
                messages.append(Message("user", question))
                for piece in self._llm.reply(messages, turn.cancel):
                    turn.mark("first_token_s")
                    yield piece
            except TalkingHeadError as error:
                turn.error = error

    def _sentences(self, pieces: Generator[str], language: str | None) -> Iterator[str]:
        with closing(pieces):
            yield from limit_length(split_sentences(pieces, language), self._max_reply_chars)


class _TurnVoice:
    """A voice for one turn that first waits until earlier, cancelled turns release the voice."""

    def __init__(self, voice: TextToSpeech, lock: Lock, turn: _Turn) -> None:
        self._voice, self._lock, self._turn = voice, lock, turn
        self.sample_rate = voice.sample_rate

    def with_emotion(self, emotion: Emotion) -> _TurnVoice:
        return _TurnVoice(with_emotion(self._voice, emotion), self._lock, self._turn)

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        for speech in self.speak_timed(text, cancel):
            yield speech.samples

    def speak_timed(self, text: str, cancel: Event | None = None) -> Iterator[TimedSpeech]:
        self._turn.mark("first_sentence_s")
        with self._lock:
            for speech in speak_timed(self._voice, text, cancel):
                self._turn.mark("first_audio_s")
                yield speech


def _chunks_until_failure(synthesizer: SentenceSynthesizer, turn: _Turn) -> Iterator[TimedSpeech]:
    """Yield speech until an error occurs; raise the error only if nothing was spoken."""
    try:
        yield from synthesizer.chunks()
    except TalkingHeadError as error:
        turn.error = turn.error or error
    if not synthesizer.spoken and not turn.interrupted:
        raise turn.error or SpeechError(
            "the reply contains nothing that can be spoken: ask something else, or choose another "
            "llm="
        )
