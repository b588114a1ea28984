"""Turn-taking between a person and a live avatar: detect turns, transcribe, reply, speak."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Literal

from talkinghead.errors import SpeechError, TalkingHeadError, UsageError
from talkinghead.live.live_avatar import LiveAvatar, LiveFrame
from talkinghead.live.session.dialogue_options import DialogueOptions
from talkinghead.live.session.turn import Turn
from talkinghead.live.session.turn_detector import TurnEvent, TurnListener
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.speech.conversation import prepare_in_thread, previous_messages
from talkinghead.speech.protocols import LanguageModel, Message, SpeechToText, TextToSpeech
from talkinghead.speech.sentence_speech import SentenceSynthesizer
from talkinghead.speech.sentences import limit_length, split_reply
from talkinghead.speech.voice_activity import SAMPLE_RATE
from talkinghead.types import AudioClip, FloatArray

log = logging.getLogger(__name__)

State = Literal["idle", "listening", "thinking", "speaking"]
Emit = Callable[[dict[str, Any]], None]

# Speech is synthesised at most this far ahead of its playback.
_MAX_AHEAD_S = 10.0
_POLL_S = 0.05
# Audio of the last reply that is kept for its recording.
_MAX_RECORDING_S = 600


class Dialogue:
    """A dialogue in which the avatar answers a microphone or typed questions.

    The person's speech interrupts the avatar. The reply is prepared at the first pause, and dropped
    if the person goes on. Sentences are spoken while the model writes the next ones. Thread-safe.

    Args:
        avatar: The live avatar.
        voice: Voice of the replies.
        llm: Language model of the replies; None allows only `say` and `push_audio`.
        stt: Speech recognition; None allows only typed questions.
        options: See `DialogueOptions`.
        emit: Function of the events (see docs/live-server.md), called from several threads.

    Attributes:
        history: Earlier questions and replies; of an interrupted reply, the spoken sentences.
        last_reply: The last turn whose reply was spoken; None before the first.
    """

    def __init__(
        self,
        avatar: LiveAvatar,
        voice: TextToSpeech,
        llm: LanguageModel | None = None,
        stt: SpeechToText | None = None,
        options: DialogueOptions | None = None,
        emit: Emit = lambda event: None,
    ) -> None:
        self.avatar, self.voice, self.llm, self.stt = avatar, voice, llm, stt
        self.options = options or DialogueOptions()
        self.history: list[Message] = []
        self.last_reply: Turn | None = None
        self._emit = emit
        self._lock = threading.RLock()
        self._num_turns = 0
        self._turn: Turn | None = None  # The turn that is being answered.
        self._pushed: Turn | None = None  # Turn that `push_audio` has started.
        self._replies: dict[int, Turn] = {}  # Turns by the number of their reply.
        self._interrupted: list[Turn] = []  # Interrupted turns that have not ended yet.
        self._is_listening = self._is_playing = False
        self._state: State = "idle"
        self._pending: Turn | None = None  # The reply that is prepared at a pause.
        self._listener = TurnListener(
            self._on_turn_event, self._on_listening_error, self.options.end_silence_s
        )
        prepare_in_thread(self.llm, self._previous_messages())

    def listen(self, samples: FloatArray, sample_rate: int) -> None:
        """Add microphone audio, float32 [num_samples] in [-1, 1], mono, as it arrives.

        The sample rate must not change. Audio is dropped while detection is 20 s behind.

        Raises:
            UsageError: There is no speech recognition or no language model.
        """
        if self.stt is None or self.llm is None:
            raise UsageError("listening needs speech recognition and a language model")
        self._listener.push(samples, sample_rate)

    def ask(self, text: str) -> int:
        """Answer a typed question, and return the number of the turn.

        Raises:
            UsageError: The text is empty, or there is no language model.
        """
        if self.llm is None:
            raise UsageError("this dialogue has no language model: choose one, or use say")
        return self._start_turn(text, self._answer)

    def say(self, text: str) -> int:
        """Speak a text unchanged, and return the number of the turn.

        Raises:
            UsageError: The text is empty.
        """
        return self._start_turn(text, self._say)

    def push_audio(self, audio: FloatArray, sample_rate: int) -> int:
        """Speak the application's own audio; call `finish_audio` at its end.

        The turn also ends if the audio stops for more than half a second, see `LiveAvatar`.

        Returns:
            The number of the turn.
        """
        with self._lock:
            if self._pushed is None or self._pushed is not self._turn:
                self._pushed = self._confirm(Turn(is_complete=True))
            self._push(self._pushed, TimedSpeech(audio), sample_rate)
            return self._pushed.number

    def finish_audio(self) -> None:
        """End the audio of `push_audio`; without effect after another turn has begun."""
        with self._lock:
            if self._pushed is not None and self._pushed is self._turn:
                self.avatar.finish()
            self._pushed = None

    def interrupt(self) -> None:
        """Stop the current turn; the avatar closes its mouth."""
        with self._lock:
            if self._turn is not None:
                self._turn.cancel.set()
                self._interrupted.append(self._turn)
            self._turn = None
            self.avatar.interrupt()
            events = self._end_interrupted()
        self._update_state()
        for event in events:
            self._emit(event)

    def on_frame(self, frame: LiveFrame) -> None:
        """Follow the playback; add this method as a listener to the `AvatarLoop`."""
        events: list[dict[str, Any]] = []
        with self._lock:
            self._is_playing = frame.reply is not None and not frame.is_reply_end
            turn = None if frame.reply is None else self._replies.get(frame.reply)
            if turn is not None and frame.reply is not None:
                turn.mark("first_frame_s")
                turn.num_frames += 1
                turn.played_s = turn.starts_s[frame.reply] + float(frame.reply_time_s or 0)
                events.extend(self._shown(turn))
                if frame.is_reply_end:
                    turn.ended_reply = frame.reply
                    if turn.is_over and not turn.cancel.is_set():
                        events.append(self._end(turn))
            events += self._end_interrupted(frame)
        self._update_state()
        for event in events:
            self._emit(event)

    def close(self) -> None:
        """Stop the turn and the threads."""
        self.interrupt()
        self._listener.close()
        if self._pending is not None:
            self._pending.cancel.set()

    def _shown(self, turn: Turn) -> Iterator[dict[str, Any]]:
        """Yield the transcript of the sentences whose playback has started."""
        while turn.num_shown < len(turn.sentences):
            sentence = turn.sentences[turn.num_shown]
            if sentence.start_s > turn.played_s:
                return
            turn.num_shown += 1
            if turn.num_shown == 1:
                yield turn.timings_event()
            yield turn.transcript_event("assistant", sentence.text)

    def _end_interrupted(self, frame: LiveFrame | None = None) -> list[dict[str, Any]]:
        """End the interrupted turns without further frames, in order, and return their events."""
        events = []
        while self._interrupted and not self._is_awaited(self._interrupted[0], frame):
            events.append(self._end(self._interrupted.pop(0)))
        return events

    def _is_awaited(self, turn: Turn, frame: LiveFrame | None) -> bool:
        """Return whether frames of an interrupted turn follow after the given frame."""
        if turn.reply is None or turn.ended_reply == turn.reply:
            return False
        is_last = frame is not None and frame.is_reply_end and not self.avatar.is_speaking
        # The avatar drops the replies that follow the one that is played.
        return not is_last and (frame is None or (frame.reply or 0) <= turn.reply)

    def _end(self, turn: Turn) -> dict[str, Any]:
        """Forget a turn whose speech was played or dropped, and return its last event."""
        if self._turn is turn:
            self._turn = None
        if (last := turn.reply) is not None:
            self._replies = {n: other for n, other in self._replies.items() if n > last}
        if turn.num_frames:
            self.last_reply = turn
        if turn.question and turn.shown_text:
            self.history.append(Message("user", turn.question))
            self.history.append(Message("assistant", turn.shown_text))
            prepare_in_thread(self.llm, self._previous_messages())
        return turn.end_event()

    def _confirm(self, turn: Turn) -> Turn:
        """Interrupt the current turn, and make another one the current one, which may speak."""
        with self._lock:
            self.interrupt()
            self._num_turns += 1
            turn.number = self._num_turns
            self._turn = turn
            self._is_listening = False
            turn.confirmed.set()
        self._show_question(turn)
        return turn

    def _start_turn(self, text: str, stage: Callable[[Turn, str], None]) -> int:
        if not (text := text.strip()):
            raise UsageError("the text is empty: type something")
        turn = self._confirm(Turn())
        turn.times.transcript_s = 0.0
        self._run(turn, stage, text)
        return turn.number

    def _run(self, turn: Turn, stage: Callable[[Turn, Any], None], value: object) -> None:
        """Run a stage of a turn in a thread, and report its error."""

        def work() -> None:
            try:
                stage(turn, value)
            except TalkingHeadError as error:
                self._fail(turn, str(error))
            except Exception:
                log.exception("turn %d failed", turn.number)
                self._fail(turn, "the reply failed because of an internal error")

        self._update_state()
        threading.Thread(target=work, name=f"turn-{turn.number}", daemon=True).start()

    def _fail(self, turn: Turn, message: str) -> None:
        if not turn.wait_until_confirmed():
            return
        self._emit({"type": "error", "turn": turn.number, "message": message})
        if self._abandon(turn) and turn.reply is None:  # No frame of the reply will end the turn.
            self._emit(turn.end_event())

    def _abandon(self, turn: Turn) -> bool:
        """End a turn early, after its speech so far; return False if it was interrupted before."""
        self._finish(turn)
        with self._lock:
            is_current = self._turn is turn
            self._turn = None if is_current else self._turn
        self._update_state()
        return is_current

    def _finish(self, turn: Turn) -> None:
        """Mark the speech of the current turn as complete; end the turn if all was played."""
        with self._lock:
            if self._turn is not turn:
                return
            self.avatar.finish()
            turn.is_complete = True
            event = self._end(turn) if turn.is_over else None
        self._update_state()
        if event is not None:
            self._emit(event)

    def _on_turn_event(self, event: TurnEvent) -> None:
        """Follow the person's turn, and answer it."""
        pending = self._pending
        if event.kind == "start":
            self._is_listening = True
            self.interrupt()
        elif event.kind == "resume" and pending is not None:
            pending.cancel.set()
            pending = None
        elif event.kind == "pause" or pending is None:
            pending = self._prepare_turn(event)
        if event.kind == "end" and pending is not None:
            self._confirm(pending)
            self._update_state()
            pending = None
        self._pending = pending

    def _on_listening_error(self, error: Exception) -> None:
        is_known = isinstance(error, TalkingHeadError)
        if not is_known:
            log.error("the turn detection failed", exc_info=error)
        reason = str(error) if is_known else "an internal error"
        self._is_listening = False
        self._update_state()
        message = f"the microphone is ignored from now on, but texts are answered: {reason}"
        self._emit({"type": "error", "message": message})

    def _prepare_turn(self, event: TurnEvent) -> Turn:
        """Start to answer a question; the reply is not spoken before `_confirm`."""
        turn = Turn(number=self._num_turns + 1, started_s=time.monotonic() - event.silence_s)
        self._run(turn, self._transcribe, event.samples)
        return turn

    def _transcribe(self, turn: Turn, samples: FloatArray) -> None:
        assert self.stt is not None
        transcript = self.stt.transcribe(AudioClip(samples, SAMPLE_RATE), turn.cancel)
        if turn.cancel.is_set():
            return
        turn.question = transcript.text.strip()
        turn.mark("transcript_s")
        self._show_question(turn)
        if not (self.options.preemptive and turn.question) and not turn.wait_until_confirmed():
            return
        if turn.question:
            self._answer(turn, turn.question, transcript.language)
        elif self._abandon(turn):  # Noise: a client that waits for a reply must know.
            self._emit(turn.transcript_event("user", ""))
            self._emit(turn.end_event())

    def _show_question(self, turn: Turn) -> None:
        """Emit the text of a spoken question, again as final once the question has ended."""
        with self._lock:
            is_final = turn.confirmed.is_set()
            if turn.question and not turn.is_question_final:
                turn.is_question_final = is_final
                self._emit(turn.transcript_event("user", turn.question, is_final))

    def _answer(self, turn: Turn, question: str, language: str | None = None) -> None:
        options, llm = self.options, self.llm
        assert llm is not None
        turn.question = question
        messages = [*self._previous_messages(), Message("user", question)]

        def pieces() -> Iterator[str]:
            for piece in llm.reply(messages, turn.cancel):
                turn.mark("first_token_s")
                yield piece

        sentences = split_reply(pieces(), options.language or language)
        self._speak(turn, limit_length(sentences, options.max_reply_chars))

    def _previous_messages(self) -> list[Message]:
        o = self.options
        return previous_messages(o.system_prompt, self.history, o.max_history, o.emotion_tags)

    def _say(self, turn: Turn, text: str) -> None:
        self._speak(turn, split_reply([text], self.options.language))

    def _speak(self, turn: Turn, sentences: Iterator[str]) -> None:
        """Synthesise sentences and push their speech, not too far ahead of the playback."""
        voice = self.voice
        synthesizer = SentenceSynthesizer(sentences, voice, turn.cancel)
        turn.sentences = synthesizer.spoken
        with closing(synthesizer.chunks()) as chunks:
            for chunk in chunks:
                if not turn.wait_until_confirmed():
                    return
                turn.mark("first_audio_s")
                with self._lock:
                    if turn.cancel.is_set():
                        return
                    self._push(turn, chunk, voice.sample_rate)
                while turn.pushed_s - turn.played_s > _MAX_AHEAD_S:
                    if turn.cancel.wait(_POLL_S):
                        return
        if turn.reply is None and not turn.cancel.is_set():
            raise SpeechError(
                "the reply contains nothing that can be spoken: ask something else, or choose "
                "another language model"
            )
        self._finish(turn)

    def _push(self, turn: Turn, speech: TimedSpeech, sample_rate: int) -> None:
        turn.reply = self.avatar.push(speech, sample_rate)
        self._replies[turn.reply] = turn
        turn.starts_s.setdefault(turn.reply, turn.pushed_s)
        turn.pushed_s += len(speech.samples) / sample_rate
        turn.sample_rate = turn.sample_rate or sample_rate
        if sum(map(len, turn.audio)) < _MAX_RECORDING_S * sample_rate:
            turn.audio.append(speech.samples)

    def _update_state(self) -> None:
        with self._lock:
            if self._is_listening:
                state: State = "listening"
            elif self._is_playing:
                state = "speaking"
            else:
                state = "idle" if self._turn is None else "thinking"
            if state == self._state:
                return
            self._state = state
        self._emit({"type": "state", "state": state})
