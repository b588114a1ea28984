"""A face that answers: hears a question, thinks, and speaks while it still thinks."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np

from talkinghead.errors import MediaError, SpeechError, TalkingHeadError, UsageError
from talkinghead.media.reader import stream_audio
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.avatar import Avatar
from talkinghead.predict.output.mux import refuse_overwriting
from talkinghead.predict.pipeline import in_thread
from talkinghead.predict.predictor import RenderReport
from talkinghead.speech.protocols import (
    LanguageModel,
    Message,
    SpeechToText,
    TextToSpeech,
    Transcript,
)
from talkinghead.speech.sentence_speech import SpokenSentence, SpokenText
from talkinghead.speech.sentences import cut_sentences
from talkinghead.speech.transcript import write_transcript
from talkinghead.types import AudioClip, FloatArray

log = logging.getLogger(__name__)

_SAMPLE_RATE = 16_000
# Nobody speaks in what is quieter: -50 dB of full scale.
_SILENCE = 10 ** (-50 / 20)


@dataclass
class TurnTimes:
    """When things happened, in seconds from the end of the question; None where they did not.

    Attributes:
        transcript_s: what was asked is known; 0 where it was typed.
        first_token_s: the language model's first piece.
        first_sentence_s: the first sentence is written.
        first_audio_s: its first sound.
        first_frame_s: the first picture is encoded.
        end_s: the video is written.
    """

    transcript_s: float | None = None
    first_token_s: float | None = None
    first_sentence_s: float | None = None
    first_audio_s: float | None = None
    first_frame_s: float | None = None
    end_s: float | None = None

    def __str__(self) -> str:
        times = {f.name[:-2].replace("_", " "): getattr(self, f.name) for f in fields(self)}
        return ", ".join(f"{name} {t:.2f} s" for name, t in times.items() if t is not None)


@dataclass(frozen=True)
class TurnReport:
    """One question and its answer.

    Attributes:
        question: what was heard or typed.
        reply: what was spoken, with its times in the video.
        times: of each stage.
        video: what was written, None where nothing was spoken before the interruption.
        interrupted: whether the reply was broken off by `interrupt`.
        error: that it was broken off by; what came before was spoken and written.
    """

    question: Transcript
    reply: tuple[SpokenSentence, ...]
    times: TurnTimes
    video: RenderReport | None
    interrupted: bool = False
    error: TalkingHeadError | None = None


@dataclass(eq=False)
class _Turn:
    """A question's stages: they stop when `cancel` is set."""

    cancel: Event = field(default_factory=Event)
    times: TurnTimes = field(default_factory=TurnTimes)
    interrupted: bool = False
    error: TalkingHeadError | None = None
    began_s: float = field(default_factory=time.monotonic)

    def mark(self, name: str) -> None:
        """It is now, unless it was before."""
        if getattr(self.times, name) is None:
            setattr(self.times, name, time.monotonic() - self.began_s)


class Conversation:
    """Questions and answers: one turn at a time, each told of those before.

    The language model's text is cut into sentences as it comes, each is spoken while the next is
    written, and the lips move from the first sound on. The stages run in threads with short queues
    between them.

    Args:
        avatar: who answers.
        llm: thinks.
        voice: speaks: a `TextToSpeech`, or a `Voice` of one, with pauses and one loudness.
        stt: hears; not needed for typed questions.
        system_prompt: what the language model is told before all else.
        language: of the replies, a two-letter code, for cutting them into sentences; None takes the
            question's.
        max_reply_chars: a reply ends with the last sentence within so many characters.
        max_history: how many messages of before the language model is told again.
        max_question_s: a longer question is refused.
        ask_again: is said where nothing was said, in place of asking the language model.

    Attributes:
        history: what was asked and spoken, the system prompt left out.
    """

    def __init__(
        self,
        avatar: Avatar,
        llm: LanguageModel,
        voice: TextToSpeech,
        stt: SpeechToText | None = None,
        *,
        system_prompt: str | None = None,
        language: str | None = None,
        max_reply_chars: int = 1000,
        max_history: int = 20,
        max_question_s: float = 120.0,
        ask_again: str = "Sorry, I did not hear anything. Could you say that again?",
    ) -> None:
        self.avatar = avatar
        self.history: list[Message] = []
        self._llm, self._voice, self._stt = llm, voice, stt
        self._system_prompt, self._language = system_prompt, language
        self._max_reply_chars, self._max_history = max_reply_chars, max_history
        self._max_question_s, self._ask_again = max_question_s, ask_again
        # A stage that was left behind may hold its provider for a while: it serves one at a time.
        self._hearing, self._thinking, self._speaking = Lock(), Lock(), Lock()
        self._turn = _Turn()

    def interrupt(self) -> None:
        """Breaks off the turn that is going on, if there is one. From any other thread.

        Every stage stops and every queue is emptied; what was spoken is kept: in the video, in the
        transcript and in the history.
        """
        self._turn.interrupted = True
        self._turn.cancel.set()

    def answer(
        self, audio: str | Path | AudioClip, output: str | Path, **options: Any
    ) -> TurnReport:
        """Answers a spoken question with a video, and writes the transcript beside it.

        Args:
            audio: a file with sound, or mono speech. Silence is answered by `ask_again`.
            output: the MP4 file; beside it `.srt`, the reply's sentences, and `.json`, all.
            **options: of `LipSyncPredictor.render`.

        Raises:
            MediaError: the question cannot be read, or is too long.
            SpeechError: a provider failed before anything was spoken. Later failures are in the
                report.
            UsageError: there is nothing that hears, or the output would overwrite an input.
        """
        if self._stt is None:
            raise UsageError("a spoken question needs something that hears: give an stt")
        refuse_overwriting(Path(output), audio)
        with self._begin() as turn:
            hearing = self._hear(self._stt, self._read(audio), turn)
            with closing(in_thread(hearing, 1, "hear", turn.cancel)) as heard:
                transcript = next(heard, None)
            if transcript is None or turn.interrupted:
                return TurnReport(Transcript(""), (), turn.times, None, interrupted=True)
            turn.mark("transcript_s")
            return self._reply(turn, transcript, output, options)

    def answer_text(self, text: str, output: str | Path, **options: Any) -> TurnReport:
        """Answers a typed question, as `answer` does a spoken one.

        Raises:
            SpeechError: as of `answer`.
            UsageError: the text is empty.
        """
        if not text.strip():
            raise UsageError("the question is empty: type something")
        with self._begin() as turn:
            turn.times.transcript_s = 0.0
            return self._reply(turn, Transcript(text.strip(), self._language), output, options)

    @contextmanager
    def _begin(self) -> Iterator[_Turn]:
        """A turn, of which nothing goes on when it is left."""
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
        pieces = self._think(turn, question.text) if question.text else _once(self._ask_again)
        voice = _TurnVoice(self._voice, self._speaking, turn)
        text = SpokenText(self._write(pieces, language), voice, turn.cancel)
        speech = SpeechStream(_survive(text, turn), self._voice.sample_rate, turn.cancel)
        tell = options.pop("progress", None)
        video: RenderReport | None = None

        def progress(done: int, total: int) -> None:
            turn.mark("first_frame_s")
            if tell:
                tell(done, total)

        try:
            video = self.avatar.predictor.render(
                self.avatar, speech, output, progress=progress, **options
            )
        except MediaError:
            # The speech was broken off before it began.
            if not turn.interrupted or text.spoken:
                raise
        turn.mark("end_s")
        spoken = tuple(text.spoken)
        report = TurnReport(question, spoken, turn.times, video, turn.interrupted, turn.error)
        self._close(report)
        return report

    def _close(self, report: TurnReport) -> None:
        """Keeps, writes and tells what was said."""
        reply = " ".join(sentence.text for sentence in report.reply)
        if report.question.text and reply:
            self.history.append(Message("user", report.question.text))
            self.history.append(Message("assistant", reply))
        if report.video is not None:
            write_transcript(report, report.video.path)
        log.info("answer%s: %s", " (interrupted)" if report.interrupted else "", reply)
        if report.video is not None:
            log.info("%s: %.2f s", report.video.path, report.video.duration_s)
        log.info("after the question: %s", report.times)
        if report.error is not None:
            log.error("the answer was broken off: %s", report.error)

    def _read(self, audio: str | Path | AudioClip) -> AudioClip:
        """The question, refused as soon as too much of it was read."""
        if isinstance(audio, AudioClip):
            rate, chunks, name = audio.sample_rate, iter([audio.samples]), "the question"
        else:
            rate, chunks, name = _SAMPLE_RATE, stream_audio(audio, _SAMPLE_RATE), str(audio)
        held: list[FloatArray] = []
        for chunk in chunks:
            held.append(chunk)
            if sum(map(len, held)) > self._max_question_s * rate:
                raise MediaError(
                    f"{name} is longer than {self._max_question_s:g} s, the most that is heard: "
                    "give a shorter question, or raise max_question_s"
                )
        return AudioClip(np.concatenate(held), rate)

    def _hear(self, stt: SpeechToText, clip: AudioClip, turn: _Turn) -> Iterator[Transcript]:
        if not (np.abs(clip.samples) > _SILENCE).any():
            yield Transcript("")
            return
        with self._hearing:
            yield stt.transcribe(clip, turn.cancel)

    def _think(self, turn: _Turn, question: str) -> Generator[str]:
        """The language model's pieces; its failure ends them and is kept."""
        before = self.history[-self._max_history :] if self._max_history else []
        system = [Message("system", self._system_prompt)] if self._system_prompt else []
        with self._thinking:
            try:
                messages = [*system, *before, Message("user", question)]
                for piece in self._llm.reply(messages, turn.cancel):
                    turn.mark("first_token_s")
                    yield piece
            except TalkingHeadError as error:
                turn.error = error

    def _write(self, pieces: Generator[str], language: str | None) -> Iterator[str]:
        """The first sentence, and those after it that are within the bound."""
        num_chars = 0
        with closing(pieces):
            for sentence in cut_sentences(pieces, language):
                if num_chars and num_chars + len(sentence) > self._max_reply_chars:
                    log.warning("the reply ends at %d characters (max_reply_chars)", num_chars)
                    return
                num_chars += len(sentence)
                yield sentence


class _TurnVoice:
    """A voice for one turn, which waits until the turn before has let go of it."""

    def __init__(self, voice: TextToSpeech, speaking: Lock, turn: _Turn) -> None:
        self._voice, self._speaking, self._turn = voice, speaking, turn
        self.sample_rate = voice.sample_rate

    def speak(self, text: str, cancel: Event | None = None) -> Iterator[FloatArray]:
        self._turn.mark("first_sentence_s")
        with self._speaking:
            for chunk in self._voice.speak(text, cancel):
                self._turn.mark("first_audio_s")
                yield chunk


def _once(text: str) -> Generator[str]:
    yield text


def _survive(text: SpokenText, turn: _Turn) -> Iterator[FloatArray]:
    """The speech, to where it is broken off; raises only where nothing was spoken."""
    try:
        yield from text.chunks()
    except TalkingHeadError as error:
        turn.error = turn.error or error
    if not text.spoken and not turn.interrupted:
        raise turn.error or SpeechError(
            "the reply holds nothing that can be said: ask something else, or choose another llm="
        )
