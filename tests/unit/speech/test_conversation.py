"""Turns of a conversation: real stages, with a small model, an echo and a voice of tones."""

import json
import threading
import time

import numpy as np
import pytest
from helpers.small_predictor import make_predictor, probe_output
from helpers.speech_services import FixedSpeechToText, RecordingEcho, ToneTextToSpeech

from talkinghead.errors import MediaError, SpeechError, UsageError
from talkinghead.media.writer import write_audio_file
from talkinghead.speech.conversation import Conversation, TurnTimes
from talkinghead.speech.protocols import Message, Transcript, Word
from talkinghead.speech.sentence_speech import SpokenSentence, speak_text
from talkinghead.speech.transcript import subtitles
from talkinghead.types import AudioClip

LONG = "This is a sentence of seven words. " * 60


@pytest.fixture(scope="module")
def avatar():
    return make_predictor().avatar(np.full((160, 192, 3), 120, np.uint8))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "answer.mp4"


def question(duration_s=1.0, level=0.3):
    noise = np.random.default_rng(0).uniform(-level, level, round(16_000 * duration_s))
    return AudioClip(noise.astype(np.float32), 16_000)


def test_a_spoken_question_is_answered_and_written_down(avatar, output, tmp_path):
    words = (Word("Who", 0.1, 0.3), Word("is it?", 0.3, 0.7))
    ears, voice = FixedSpeechToText(Transcript("Who is it?", "en", words)), ToneTextToSpeech()
    conversation = Conversation(avatar, RecordingEcho("You ask: {} It is me."), voice, ears)
    file = tmp_path / "question.wav"
    write_audio_file(file, question())
    report = conversation.answer(file, output, crf=30)
    assert len(ears.heard[0].samples) == 16_000
    assert [text for text, _ in voice.spoken] == ["You ask: Who is it?", "It is me."]
    times, sound_s, _ = probe_output(output)
    assert len(times) == report.video.num_frames == 20
    assert sound_s == pytest.approx(0.8, abs=0.1)
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


def test_each_turn_knows_those_before(avatar, output):
    mind = RecordingEcho("I hear {}")
    conversation = Conversation(
        avatar, mind, ToneTextToSpeech(), system_prompt="Be brief.", max_history=4
    )
    for text in ("one.", "two.", "three."):
        conversation.answer_text(text, output)
    assert conversation.history[-2:] == [
        Message("user", "three."),
        Message("assistant", "I hear three."),
    ]
    assert mind.told[2] == [
        ("system", "Be brief."),
        ("user", "one."),
        ("assistant", "I hear one."),
        ("user", "two."),
        ("assistant", "I hear two."),
        ("user", "three."),
    ]
    conversation.answer_text("four.", output)
    assert [content for _, content in mind.told[3]] == [
        *("Be brief.", "two.", "I hear two.", "three.", "I hear three.", "four.")
    ]


def test_the_first_frame_comes_long_before_the_whole_answer(avatar, output):
    mind = RecordingEcho(tokens_per_second=20)
    conversation = Conversation(avatar, mind, ToneTextToSpeech(), max_reply_chars=10_000)
    taken = []

    def progress(done, total):
        if done == 1:
            taken.append(mind.num_taken)
            conversation.interrupt()

    text = " ".join(f"Word {n} of it." for n in range(1, 26))
    assert len(text.split()) == 100
    report = conversation.answer_text(text, output, progress=progress)
    assert report.times.first_frame_s < report.times.first_sentence_s + 2
    assert taken[0] < 60


def test_a_sentence_is_spoken_while_the_next_is_written(avatar, output):
    mind, written = RecordingEcho(tokens_per_second=40), []

    class Voice(ToneTextToSpeech):
        def speak(self, text, cancel=None):
            written.append(mind.num_taken)
            return super().speak(text, cancel)

    Conversation(avatar, mind, Voice()).answer_text("One is here. " * 12, output)
    assert len(written) == 12
    assert written[0] < 12
    assert written[5] < 30
    assert mind.num_taken == 36


def test_an_interruption_stops_everything_and_keeps_what_was_spoken(avatar, output):
    mind, voice = RecordingEcho(), ToneTextToSpeech()
    conversation = Conversation(avatar, mind, voice, max_reply_chars=10_000)
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
    assert mind.told[-1][1] == ("assistant", conversation.history[1].content)


def test_what_is_stuck_does_not_hold_up_an_interruption(avatar, output):
    mind = RecordingEcho(breaks_at=0, stuck=threading.Event())
    conversation = Conversation(avatar, mind, ToneTextToSpeech())
    threading.Timer(0.3, conversation.interrupt).start()
    started = time.monotonic()
    report = conversation.answer_text("Hello there.", output)
    assert time.monotonic() - started < 1.5
    assert report.video is None
    assert report.reply == ()
    assert conversation.history == []
    assert not list(output.parent.iterdir())
    # The next turn waits until the model has let go of the one before.
    threading.Timer(0.3, mind.stuck.set).start()
    assert conversation.answer_text("And now?", output).reply[0].text == "And now?"


def test_hearing_is_interrupted_too(avatar, output):
    class Deaf(FixedSpeechToText):
        def transcribe(self, audio, cancel=None):
            cancel.wait(20)
            return Transcript("too late")

    conversation = Conversation(avatar, RecordingEcho(), ToneTextToSpeech(), Deaf(None))
    threading.Timer(0.2, conversation.interrupt).start()
    report = conversation.answer(question(), output)
    assert report.interrupted
    assert report.times == TurnTimes()
    assert not list(output.parent.iterdir())


def test_a_model_that_breaks_off_is_heard_to_its_last_word(avatar, output):
    mind = RecordingEcho(breaks_at=5)
    conversation = Conversation(avatar, mind, ToneTextToSpeech())
    report = conversation.answer_text("I begin well. But then I fail here.", output)
    assert [sentence.text for sentence in report.reply] == ["I begin well.", "But then"]
    assert report.video.num_frames == 13
    assert isinstance(report.error, SpeechError)
    assert json.loads(output.with_suffix(".json").read_text())["error"] == "the line went dead"
    assert conversation.history[-1].content == "I begin well. But then"


def test_a_voice_that_breaks_off_is_heard_to_its_last_word(avatar, output):
    conversation = Conversation(avatar, RecordingEcho(), ToneTextToSpeech(breaks_at="fail"))
    report = conversation.answer_text("I begin well. But then I fail here. Later.", output)
    assert report.video.duration_s == pytest.approx(0.6)
    assert str(report.error) == "the voice broke"


@pytest.mark.parametrize(
    ("mind", "voice", "text", "message"),
    [
        (RecordingEcho(breaks_at=0), ToneTextToSpeech(), "Hello.", "the line went dead"),
        (RecordingEcho(), ToneTextToSpeech(breaks_at="Hello."), "Hello.", "the voice broke"),
        (RecordingEcho(), ToneTextToSpeech(), "😀 !", "nothing that can be said"),
    ],
)
def test_where_nothing_can_be_spoken_nothing_is_written(avatar, output, mind, voice, text, message):
    conversation = Conversation(avatar, mind, voice)
    with pytest.raises(SpeechError, match=message):
        conversation.answer_text(text, output)
    assert not list(output.parent.iterdir())
    assert conversation.history == []


def test_silence_is_asked_again_and_spends_no_call(avatar, output):
    mind, voice, ears = RecordingEcho(), ToneTextToSpeech(), FixedSpeechToText(Transcript(""))
    conversation = Conversation(avatar, mind, voice, ears, ask_again="What did you say?")
    for level, num_heard in ((0.001, 0), (0.3, 1)):
        report = conversation.answer(question(level=level), output)
        assert [sentence.text for sentence in report.reply] == ["What did you say?"]
        assert len(ears.heard) == num_heard
    assert mind.told == []
    assert conversation.history == []


def test_a_question_that_is_too_long_is_refused(avatar, output, tmp_path):
    file = tmp_path / "long.wav"
    write_audio_file(file, question(3.0))
    ears = FixedSpeechToText(Transcript("Yes?"))
    conversation = Conversation(avatar, RecordingEcho(), ToneTextToSpeech(), ears, max_question_s=2)
    for audio in (file, question(3.0)):
        with pytest.raises(MediaError, match=r"longer than 2 s.* max_question_s"):
            conversation.answer(audio, output)
    assert ears.heard == []


def test_a_question_must_be_there_and_be_heard(avatar, output):
    conversation = Conversation(avatar, RecordingEcho(), ToneTextToSpeech())
    with pytest.raises(UsageError, match="question is empty"):
        conversation.answer_text("  ", output)
    with pytest.raises(UsageError, match="give an stt"):
        conversation.answer(question(), output)


def test_a_reply_is_bounded(avatar, output):
    mind, voice = RecordingEcho(), ToneTextToSpeech(word_s=0.02)
    conversation = Conversation(avatar, mind, voice, max_reply_chars=100)
    report = conversation.answer_text("This is a sentence. " * 5000, output)
    assert [sentence.text for sentence in report.reply] == ["This is a sentence."] * 5
    assert mind.num_taken < 100


def test_a_long_text_is_spoken_as_a_stream(avatar):
    voice = ToneTextToSpeech()
    stream = speak_text("No full stop in it " * 5300, voice, "en")
    with avatar.predictor.predict(avatar, stream) as prediction:
        for _ in range(50):
            next(prediction)
    assert 1 <= len(voice.spoken) < 12
    assert all(len(text) <= 250 for text, _ in voice.spoken)


def test_a_text_must_not_be_empty():
    with pytest.raises(UsageError, match="text is empty"):
        speak_text(" \n", ToneTextToSpeech())


def test_subtitles_count_hours():
    assert subtitles([SpokenSentence("Late.", 3661.5, 36_000.0004)]) == (
        "1\n01:01:01,500 --> 10:00:00,000\nLate.\n"
    )
