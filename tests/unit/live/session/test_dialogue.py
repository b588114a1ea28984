"""A dialogue answers, can be interrupted, and reports what it does."""

import threading
import time

import numpy as np
import pytest
from helpers.live_parts import ToneVoice, wait_for
from helpers.speech_services import TimedToneTextToSpeech

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.live.session.turn_detector import TurnEvent
from talkinghead.speech.llm.echo import Echo
from talkinghead.speech.protocols import Transcript

pytest.importorskip("pysbd", reason="needs the extra offline")

RATE = 16_000


class FixedTranscripts:
    """A speech recognition that returns the given texts in turn."""

    def __init__(self, *texts):
        self.texts = list(texts)

    def transcribe(self, audio, cancel=None):
        return Transcript(self.texts.pop(0), "en")


class FailingModel:
    def reply(self, messages, cancel=None):
        yield "One sentence. "
        raise SpeechError("the model has failed")


def states(events):
    return [event["state"] for event in events if event["type"] == "state"]


def test_typed_question_is_answered_and_remembered(start):
    live = start(Echo())
    turn = live.dialogue.ask("What is this?")
    (end,) = wait_for(live.events, "reply_end")
    assert (end["turn"], end["interrupted"]) == (turn, False)
    (transcript,) = wait_for(live.events, "transcript")
    assert (transcript["role"], transcript["text"]) == ("assistant", "You said: What is this?")
    assert states(live.events) == ["thinking", "speaking", "idle"]
    (timings,) = wait_for(live.events, "timings")
    assert 0 <= timings["first_token_s"] <= timings["first_audio_s"] <= timings["first_frame_s"]
    assert [message.content for message in live.dialogue.history] == [
        "What is this?",
        "You said: What is this?",
    ]
    spoken = np.concatenate([frame.audio for frame in live.frames])
    assert np.count_nonzero(spoken) > 0.45 * RATE


def test_sentences_are_shown_when_they_are_spoken(start):
    live = start()
    live.dialogue.say("First sentence here. Second sentence here.")
    wait_for(live.events, "reply_end")
    first, second = wait_for(live.events, "transcript", 2)
    assert (first["text"], second["text"]) == ("First sentence here.", "Second sentence here.")
    turn = live.dialogue.last_reply
    assert turn.sentences[1].start_s == pytest.approx(0.3, abs=0.02)
    assert len(np.concatenate(turn.audio)) == 6 * 1600


def test_interruption_keeps_only_the_spoken_text(start):
    live = start(Echo("{}. " + "A long second sentence with many words. " * 6))
    question = "one two three four five six seven eight nine ten"
    live.dialogue.ask(question)
    wait_for(live.events, "transcript")
    live.dialogue.interrupt()
    started_s = time.monotonic()
    (end,) = wait_for(live.events, "reply_end")
    assert time.monotonic() - started_s < 1.0
    assert end["interrupted"]
    assert [message.content for message in live.dialogue.history] == [question, f"{question}."]
    time.sleep(0.3)
    assert states(live.events)[-1] == "idle"
    assert not live.frames[-1].audio.any()


def test_model_prepares_the_messages_before_the_next_question(start):
    prepared = []

    class PreparingEcho(Echo):
        def prepare(self, messages):
            prepared.append([message.content for message in messages])

    live = start(PreparingEcho(), system_prompt="Be brief.")
    live.dialogue.ask("One?")
    wait_for(live.events, "reply_end")
    first, second = prepared
    assert first == ["Be brief."]
    assert second == ["Be brief.", "One?", "You said: One?"]


def test_new_question_replaces_the_previous_reply(start):
    live = start(Echo())
    live.dialogue.say("one two three four five six seven eight nine ten " * 3)
    wait_for(live.events, "transcript")
    second = live.dialogue.ask("And now?")
    ends = wait_for(live.events, "reply_end", 2)
    assert [end["interrupted"] for end in ends] == [True, False]
    assert ends[1]["turn"] == second
    texts = [event["text"] for event in live.events if event["type"] == "transcript"]
    assert texts[-1] == "You said: And now?"


def test_failing_model_is_reported_after_the_preceding_speech(start):
    live = start(FailingModel())
    live.dialogue.ask("Hello")
    (error,) = wait_for(live.events, "error")
    assert error["message"] == "the model has failed"
    live.dialogue.say("Still alive.")
    wait_for(live.events, "reply_end")


@pytest.fixture
def turn_events(monkeypatch):
    """Return a list of functions; each chunk of the microphone yields the events of the next."""
    makers = []

    def turns(chunks, sample_rate, end_s):
        for chunk in chunks:
            yield from makers.pop(0)(chunk)

    monkeypatch.setattr("talkinghead.live.session.turn_detector.detect_turns", turns)
    return makers


def event(kind, samples=None, silence_s=0.0):
    return TurnEvent(kind, np.zeros(0, np.float32) if samples is None else samples, silence_s)


def complete_turn(chunk):
    return [event("start"), event("pause", chunk, 0.3), event("end", chunk, 0.6)]


def test_speech_is_answered_and_interrupts(start, turn_events):
    turn_events += [complete_turn] * 2
    live = start(Echo(), FixedTranscripts("Good morning", ""), preemptive=False)
    live.dialogue.say("one two three four five six seven eight nine ten")
    wait_for(live.events, "transcript")
    live.dialogue.listen(np.ones(320, np.float32), RATE)
    ends = wait_for(live.events, "reply_end", 2)
    assert [end["interrupted"] for end in ends] == [True, False]
    question, reply = wait_for(live.events, "transcript", 3)[-2:]
    assert (question["role"], question["text"]) == ("user", "Good morning")
    assert question["is_final"]
    assert question["turn"] == ends[1]["turn"]
    assert reply["text"] == "You said: Good morning"
    (timings,) = [e for e in live.events if e["type"] == "timings" and e["turn"] == ends[1]["turn"]]
    assert timings["transcript_s"] >= 0.3  # The silence before the transcription is included.
    # Speech that contains no words gets no answer, and the client is told.
    live.dialogue.listen(np.ones(320, np.float32), RATE)
    end = wait_for(live.events, "reply_end", 3)[-1]
    assert (end["turn"], end["num_frames"], end["interrupted"]) == (3, 0, False)
    noise = wait_for(live.events, "transcript", 4)[-1]
    assert (noise["role"], noise["turn"], noise["text"], noise["is_final"]) == ("user", 3, "", True)
    assert states(live.events)[-1] == "idle"


def test_reply_is_prepared_at_a_pause_and_spoken_after_the_end(start, turn_events):
    turn_events += [
        lambda chunk: [event("start"), event("pause", chunk, 0.3)],
        lambda chunk: [event("end", chunk, 0.6)],
    ]
    voice = ToneVoice()
    spoken = []
    voice.speak = lambda text, cancel=None: spoken.append(text) or ToneVoice().speak(text, cancel)
    live = start(Echo(), FixedTranscripts("Good morning"), voice)
    live.dialogue.listen(np.ones(320, np.float32), RATE)
    (interim,) = wait_for(live.events, "transcript")
    time.sleep(0.5)
    assert spoken == ["You said: Good morning"]
    assert states(live.events) == ["listening"]
    assert not any(frame.audio.any() for frame in live.frames)
    live.dialogue.listen(np.ones(320, np.float32), RATE)
    wait_for(live.events, "reply_end")
    final = wait_for(live.events, "transcript", 2)[1]
    assert (interim["is_final"], final["is_final"]) == (False, True)
    assert (interim["text"], interim["turn"]) == (final["text"], final["turn"])
    assert len(spoken) == 1


def test_prepared_reply_is_dropped_when_the_person_goes_on(start, turn_events):
    turn_events += [
        lambda chunk: [event("start"), event("pause", chunk, 0.3)],
        lambda chunk: [event("resume"), event("pause", chunk, 0.3), event("end", chunk, 0.6)],
    ]
    live = start(Echo(), FixedTranscripts("Good", "Good morning"))
    live.dialogue.listen(np.ones(320, np.float32), RATE)
    wait_for(live.events, "transcript")
    time.sleep(0.3)
    live.dialogue.listen(np.ones(320, np.float32), RATE)
    (end,) = wait_for(live.events, "reply_end")
    assert end["turn"] == 1
    assert [message.content for message in live.dialogue.history] == [
        "Good morning",
        "You said: Good morning",
    ]


def test_pushed_audio_is_spoken_as_one_turn(start):
    live = start()
    tone = next(iter(ToneVoice().speak("tone")))
    turns = {live.dialogue.push_audio(tone, RATE) for _ in range(4)}
    live.dialogue.finish_audio()
    (end,) = wait_for(live.events, "reply_end")
    assert turns == {end["turn"]}
    assert end["duration_s"] == pytest.approx(0.6, abs=0.1)
    assert len(np.concatenate(live.dialogue.last_reply.audio)) == 4 * 1600


def test_pushed_audio_after_a_gap_is_another_turn(start):
    live = start()
    tone = np.tile(next(iter(ToneVoice().speak("tone"))), 6)
    first = live.dialogue.push_audio(tone, RATE)
    wait_for(live.events, "reply_end")
    second = live.dialogue.push_audio(tone, RATE)
    live.dialogue.interrupt()
    third = live.dialogue.push_audio(tone, RATE)
    live.dialogue.finish_audio()
    ends = wait_for(live.events, "reply_end", 3)
    assert [end["turn"] for end in ends] == [first, second, third]
    assert [end["interrupted"] for end in ends] == [False, True, False]


def test_late_end_of_pushed_audio_does_not_end_the_next_turn(start):
    class SlowVoice(ToneVoice):
        def speak(self, text, cancel=None):
            for chunk in super().speak(text, cancel):
                yield np.tile(chunk, 3)
                time.sleep(0.3)

    live = start(voice=SlowVoice())
    live.dialogue.push_audio(next(iter(ToneVoice().speak("tone"))), RATE)
    said = live.dialogue.say("one two three four")
    wait_for(live.events, "transcript")
    live.dialogue.finish_audio()
    pushed, end = wait_for(live.events, "reply_end", 2)
    assert (pushed["interrupted"], end["turn"]) == (True, said)
    assert end["duration_s"] == pytest.approx(1.4, abs=0.2)
    time.sleep(0.3)
    assert len(wait_for(live.events, "reply_end")) == 2


def test_slow_sentences_belong_to_one_turn(start):
    class SlowVoice(ToneVoice):
        def speak(self, text, cancel=None):
            if "Second" in text:
                time.sleep(1.5)
            return super().speak(text, cancel)

    live = start(voice=SlowVoice())
    live.dialogue.say("First sentence here. Second sentence here.")
    (end,) = wait_for(live.events, "reply_end")
    texts = [event["text"] for event in wait_for(live.events, "transcript", 2)]
    assert texts == ["First sentence here.", "Second sentence here."]
    assert states(live.events) == ["thinking", "speaking", "thinking", "speaking", "idle"]
    assert 0.6 < end["duration_s"] < 1.4
    time.sleep(0.3)
    assert len(wait_for(live.events, "reply_end")) == 1


def test_failed_turn_detection_is_an_error_event(start, monkeypatch):
    def detect_turns(chunks, sample_rate, end_s):
        raise DependencyError("no speech detector: pip install it")

    monkeypatch.setattr("talkinghead.live.session.turn_detector.detect_turns", detect_turns)
    live = start(Echo(), FixedTranscripts())
    for _ in range(1100):  # More than waiting audio can be.
        live.dialogue.listen(np.ones(320, np.float32), RATE)
    (error,) = wait_for(live.events, "error")
    assert "no speech detector: pip install it" in error["message"]


def test_long_text_is_synthesised_little_ahead_of_its_playback(start):
    spoken = []

    class CountingVoice(ToneVoice):
        def speak(self, text, cancel=None):
            spoken.append(text)
            for chunk in super().speak(text, cancel):
                yield np.tile(chunk, 10)

    live = start(voice=CountingVoice())
    live.dialogue.say("Five words are spoken here. " * 40)
    wait_for(live.events, "transcript")
    time.sleep(1)
    assert len(spoken) < 15
    live.dialogue.interrupt()
    wait_for(live.events, "reply_end")


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda dialogue: dialogue.ask("Hello"), "language model"),
        (lambda dialogue: dialogue.say("  "), "empty"),
        (lambda dialogue: dialogue.listen(np.zeros(10, np.float32), RATE), "speech recognition"),
    ],
)
def test_missing_parts_are_errors(start, act, expected):
    with pytest.raises(UsageError, match=expected):
        act(start().dialogue)


def test_text_without_speech_is_an_error_event(start):
    class MuteVoice(ToneVoice):
        def speak(self, text, cancel=None):
            return iter(())

    live = start(voice=MuteVoice())
    live.dialogue.say("...")
    (error,) = wait_for(live.events, "error")
    assert "nothing that can be spoken" in error["message"]
    assert states(live.events)[-1] == "idle"


def test_concurrent_callers_do_not_mix_replies(start):
    live = start()
    threads = [
        threading.Thread(target=live.dialogue.say, args=(f"text number {number}",))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = wait_for(live.events, "reply_end")
    while not [end for end in ends if not end["interrupted"]]:
        ends = wait_for(live.events, "reply_end", len(ends) + 1)
    # Only the last text is spoken to its end.
    last = max(end["turn"] for end in ends)
    assert [end["turn"] for end in ends if not end["interrupted"]] == [last] == [8]


def test_phonemes_of_the_voice_are_pushed_with_its_speech(start, monkeypatch):
    session, phonemes = start(voice=TimedToneTextToSpeech()), []
    push = session.dialogue.avatar.push

    def record(speech, sample_rate):
        phonemes.extend(speech.phonemes)
        return push(speech, sample_rate)

    monkeypatch.setattr(session.dialogue.avatar, "push", record)
    session.dialogue.say("My big boat.")
    wait_for(session.events, "reply_end")
    assert [phoneme.symbol for phoneme in phonemes] == ["m", "b", "b"]
