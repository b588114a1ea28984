"""Conversation turns with real stages: a small model, an echo and a voice of tones."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.media_files import write_wav
from helpers.small_predictor import STILL, make_predictor, probe_output
from helpers.speech_services import (
    FixedSpeechToText,
    RecordingEcho,
    TimedToneTextToSpeech,
    ToneTextToSpeech,
)

from talkinghead.errors import MediaError, SpeechError, UsageError
from talkinghead.predict.options import EncodeOptions
from talkinghead.speech.conversation import Conversation, previous_messages
from talkinghead.speech.protocols import Message, Transcript, Word
from talkinghead.speech.turn_report import TurnTimes
from talkinghead.types import AudioClip

LONG = "This is a sentence of seven words. " * 60


@pytest.fixture(scope="module")
def avatar():
    return make_predictor().avatar(np.full((160, 192, 3), 120, np.uint8), STILL)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "answer.mp4"


def question(duration_s=1.0, level=0.3):
    noise = np.random.default_rng(0).uniform(-level, level, round(16_000 * duration_s))
    return AudioClip(noise.astype(np.float32), 16_000)


def test_spoken_question_gives_video_and_transcript(avatar, output, tmp_path):
    words = (Word("Who", 0.1, 0.3), Word("is it?", 0.3, 0.7))
    stt, voice = FixedSpeechToText(Transcript("Who is it?", "en", words)), ToneTextToSpeech()
    conversation = Conversation(avatar, RecordingEcho("You ask: {} It is me."), voice, stt)
    file = tmp_path / "question.wav"
    write_wav(file, question())
    report = conversation.answer(file, output, encode=EncodeOptions(crf=30))
    assert len(stt.received[0].samples) == 16_000
    assert voice.spoken == ["You ask: Who is it?", "It is me."]
    times, audio_s, _ = probe_output(output)
    assert len(times) == report.video.num_frames == 20
    assert audio_s == pytest.approx(0.8, abs=0.1)
    assert output.with_suffix(".srt").read_text() == (
        "1\n00:00:00,000 --> 00:00:00,500\nYou ask: Who is it?\n\n"
        "2\n00:00:00,500 --> 00:00:00,800\nIt is me.\n"
    )
    written = json.loads(output.with_suffix(".json").read_text())
    assert written["question"]["text"] == "Who is it?"
    assert written["question"]["words"][1] == {"text": "is it?", "start_s": 0.3, "end_s": 0.7}
    assert written["reply"][1] == {"text": "It is me.", "start_s": 0.5, "end_s": 0.8}
    assert written["error"] is None
    assert not written["interrupted"]
    measured = [value for value in written["times"].values() if value is not None]
    assert len(measured) == 6
    assert measured == sorted(measured)


def test_reply_is_rendered_with_the_phonemes_of_the_voice(avatar, output, monkeypatch):
    rendered = []
    render = type(avatar.predictor).render

    def record(predictor, face, speech, *arguments, **options):
        report = render(predictor, face, speech, *arguments, **options)
        rendered.extend(phoneme.symbol for phoneme in speech.phonemes.between(0, 9))
        return report

    monkeypatch.setattr(type(avatar.predictor), "render", record)
    Conversation(avatar, RecordingEcho(), TimedToneTextToSpeech()).answer_text(
        "My big boat.", output
    )
    assert rendered == ["m", "b", "b"]


def test_history_is_sent_up_to_its_maximum(avatar, output):
    llm = RecordingEcho("I hear {}")
    options = {"system_prompt": "Be brief.", "max_history": 4}
    conversation = Conversation(avatar, llm, ToneTextToSpeech(), **options)
    for text in ("one.", "two.", "three.", "four."):
        conversation.answer_text(text, output)
    assert conversation.history[-1] == Message("assistant", "I hear four.")
    assert llm.requests[3] == [
        ("system", "Be brief."),
        *(("user", "two."), ("assistant", "I hear two.")),
        *(("user", "three."), ("assistant", "I hear three.")),
        ("user", "four."),
    ]


def test_conversation_stages_run_concurrently(avatar, output):
    llm, num_written, num_rendered = RecordingEcho(tokens_per_second=20), [], []

    class Voice(ToneTextToSpeech):
        def speak(self, text, cancel=None):
            num_written.append(llm.num_taken)
            return super().speak(text, cancel)

    conversation = Conversation(avatar, llm, Voice(), max_reply_chars=10_000)

    def progress(done, total):
        num_rendered.append(llm.num_taken)
        if len(num_written) > 5:
            conversation.interrupt()

    conversation.answer_text("One is here. " * 40, output, progress=progress)
    assert num_written[0] < 12
    assert num_written[5] < 30
    assert num_rendered[0] < 60
    assert llm.num_taken < 120


def test_interruption_stops_all_stages_and_keeps_spoken_part(avatar, output):
    llm, voice = RecordingEcho(), ToneTextToSpeech()
    conversation = Conversation(avatar, llm, voice, max_reply_chars=10_000)
    at = []

    def progress(done, total):
        if done == 40:
            at.append(time.monotonic())
            threading.Thread(target=conversation.interrupt).start()

    report = conversation.answer_text(LONG, output, progress=progress)
    assert time.monotonic() - at[0] < 1.5
    assert report.interrupted
    assert report.error is None
    assert 40 <= report.video.num_frames < 100
    assert report.reply[-1].end_s == pytest.approx(float(report.video.duration_s))
    assert len(report.reply) < len(voice.spoken) < 30
    assert conversation.history[-1].content == " ".join(s.text for s in report.reply)
    assert json.loads(output.with_suffix(".json").read_text())["interrupted"]
    again = conversation.answer_text("Go on.", output)
    assert [sentence.text for sentence in again.reply] == ["Go on."]
    assert llm.requests[-1][2] == ("assistant", conversation.history[1].content)


def test_blocked_language_model_does_not_delay_interruption(avatar, output):
    llm = RecordingEcho(fails_at=0, unblock=threading.Event())
    conversation = Conversation(avatar, llm, ToneTextToSpeech())
    threading.Timer(0.3, conversation.interrupt).start()
    started = time.monotonic()
    report = conversation.answer_text("Hello there.", output)
    assert time.monotonic() - started < 1.5
    assert report.video is None
    assert report.reply == ()
    assert conversation.history == []
    assert not list(output.parent.iterdir())
    # The next turn waits until the model has finished the one before.
    threading.Timer(0.3, llm.unblock.set).start()
    assert conversation.answer_text("And now?", output).reply[0].text == "And now?"


def test_transcription_can_be_interrupted(avatar, output):
    class BlockedTranscriber(FixedSpeechToText):
        def transcribe(self, audio, cancel=None):
            cancel.wait(20)
            return Transcript("too late")

    stt = BlockedTranscriber(None)
    conversation = Conversation(avatar, RecordingEcho(), ToneTextToSpeech(), stt)
    threading.Timer(0.2, conversation.interrupt).start()
    report = conversation.answer(question(), output)
    assert report.interrupted
    assert report.times == TurnTimes()
    assert not list(output.parent.iterdir())


def test_speech_before_a_failure_is_rendered(avatar, output):
    conversation = Conversation(avatar, RecordingEcho(fails_at=5), ToneTextToSpeech())
    report = conversation.answer_text("I begin well. But then I fail here.", output)
    assert [sentence.text for sentence in report.reply] == ["I begin well.", "But then"]
    assert report.video.num_frames == 13
    assert isinstance(report.error, SpeechError)
    written = json.loads(output.with_suffix(".json").read_text())
    assert written["error"] == "the connection was lost"
    assert conversation.history[-1].content == "I begin well. But then"
    conversation = Conversation(avatar, RecordingEcho(), ToneTextToSpeech(fails_at="fail"))
    report = conversation.answer_text("I begin well. But then I fail here. Later.", output)
    assert report.video.duration_s == pytest.approx(0.6)
    assert str(report.error) == "the voice failed"


@pytest.mark.parametrize(
    ("llm", "voice", "text", "message"),
    [
        (RecordingEcho(fails_at=0), ToneTextToSpeech(), "Hello.", "the connection was lost"),
        (RecordingEcho(), ToneTextToSpeech(fails_at="Hello."), "Hello.", "the voice failed"),
        (RecordingEcho(), ToneTextToSpeech(), "😀 !", "nothing that can be spoken"),
    ],
)
def test_reply_without_speech_raises_and_writes_nothing(avatar, output, llm, voice, text, message):
    conversation = Conversation(avatar, llm, voice)
    with pytest.raises(SpeechError, match=message):
        conversation.answer_text(text, output)
    assert not list(output.parent.iterdir())
    assert conversation.history == []


def test_question_without_speech_gets_fixed_reply(avatar, output):
    llm, stt = RecordingEcho(), FixedSpeechToText(Transcript(""))
    conversation = Conversation(
        avatar, llm, ToneTextToSpeech(), stt, no_speech_reply="What did you say?"
    )
    for level, num_transcribed in ((0.001, 0), (0.3, 1)):
        report = conversation.answer(question(level=level), output)
        assert [sentence.text for sentence in report.reply] == ["What did you say?"]
        assert len(stt.received) == num_transcribed
    assert llm.requests == []
    assert conversation.history == []


def test_invalid_questions_are_refused(avatar, output, tmp_path):
    file = tmp_path / "long.wav"
    write_wav(file, question(3.0))
    stt = FixedSpeechToText(Transcript("Yes?"))
    conversation = Conversation(avatar, RecordingEcho(), ToneTextToSpeech(), stt, max_question_s=2)
    for audio in (file, question(3.0)):
        with pytest.raises(MediaError, match=r"longer than 2 s.* max_question_s"):
            conversation.answer(audio, output)
    assert stt.received == []
    with pytest.raises(UsageError, match="question is empty"):
        conversation.answer_text("  ", output)
    with pytest.raises(UsageError, match="give an stt"):
        Conversation(avatar, RecordingEcho(), ToneTextToSpeech()).answer(question(), output)


def test_reply_is_limited_to_max_reply_chars(avatar, output):
    llm, voice = RecordingEcho(), ToneTextToSpeech(word_s=0.02)
    conversation = Conversation(avatar, llm, voice, max_reply_chars=100)
    report = conversation.answer_text("This is a sentence. " * 5000, output)
    assert [sentence.text for sentence in report.reply] == ["This is a sentence."] * 5
    assert llm.num_taken < 100


def test_second_caller_of_a_conversation_is_refused(avatar, output, tmp_path):
    llm = RecordingEcho(fails_at=0, unblock=threading.Event())
    conversation = Conversation(avatar, llm, ToneTextToSpeech())
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(conversation.answer_text, "First.", output)
        while not llm.requests:
            assert not first.done() or first.result()  # Raises the error of the first caller.
            time.sleep(0.01)
        with pytest.raises(UsageError, match=r"conversation is in use by another .*interrupt\(\)"):
            conversation.answer_text("Second.", tmp_path / "second.mp4")
        llm.unblock.set()
        assert first.result().reply[0].text == "First."
    assert [message.content for message in conversation.history] == ["First.", "First."]
    assert conversation.answer_text("Third.", output).reply[0].text == "Third."


@pytest.mark.parametrize(
    ("num_messages", "max_messages", "first"),
    [(4, 8, 0), (8, 8, 0), (9, 8, 4), (12, 8, 4), (13, 8, 8), (4, 0, 4), (4, 2, 2)],
)
def test_old_messages_are_left_out_in_steps(num_messages, max_messages, first):
    history = [Message("user", str(number)) for number in range(num_messages)]
    system = Message("system", "Be brief.")
    assert previous_messages("Be brief.", history, max_messages) == [system, *history[first:]]
    assert previous_messages(None, history, max_messages) == history[first:]
