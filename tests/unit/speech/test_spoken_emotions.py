from __future__ import annotations

import logging

import numpy as np
import pytest

from talkinghead.predict.audio.phonemes import Phoneme, TimedSpeech, process_timed
from talkinghead.predict.source.head.expression.emotion_tags import take_emotion
from talkinghead.predict.source.head.expression.emotions import EMOTIONS, Emotion
from talkinghead.speech.conversation import previous_messages
from talkinghead.speech.phoneme_alignment import AlignedTextToSpeech
from talkinghead.speech.protocols import Message
from talkinghead.speech.sentence_speech import SentenceSynthesizer, speak_text
from talkinghead.speech.sentences import split_reply, split_sentences
from talkinghead.speech.voice import Voice

RATE = 8000


class Recorder:
    """A voice that records the spoken texts; each text takes half a second."""

    sample_rate = RATE

    def __init__(self):
        self.texts = []

    def speak(self, text, cancel=None):
        self.texts.append(text)
        yield np.full(RATE // 2, 0.1, np.float32)


@pytest.mark.parametrize(
    ("text", "spoken", "emotion"),
    [
        ("[happy] Good morning!", "Good morning!", Emotion("happy")),
        ("[Happy]Good morning!", "Good morning!", Emotion("happy")),
        ("[ sad : 0.5 ] Oh.", "Oh.", Emotion("sad", 0.5)),
        ("[sad 0.5] Oh.", "Oh.", Emotion("sad", 0.5)),
        ("[angry=1] No.", "No.", Emotion("angry")),
        ("[happy:0.5 Good morning!", "Good morning!", Emotion("happy", 0.5)),
        ("[happy Good morning!", "Good morning!", Emotion("happy")),
        ("Good morning! [happy", "Good morning!", Emotion("happy")),
        ("[happy] Good morning! [/happy]", "Good morning!", Emotion("neutral")),
        ("[afraid][sad] Oh.", "Oh.", Emotion("sad")),
        ("[happy:3] Hi.", "Hi.", Emotion("happy")),
        ("[happy]", "", Emotion("happy")),
        ("Take [the red one] or [2].", "Take [the red one] or [2].", None),
        ("[excited Good morning!", "Good morning!", None),
        ("That is funny. [laughs", "That is funny.", None),
        ("Well [", "Well", None),
        ("[Note: this is long.", "[Note: this is long.", None),
        ("It is [not over] yet.", "It is [not over] yet.", None),
        ("Happy birthday!", "Happy birthday!", None),
    ],
)
def test_tags_are_removed_and_parsed(text, spoken, emotion):
    assert take_emotion(text) == (spoken, emotion)


def test_unknown_tag_is_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert take_emotion("[excited] Hello [laughs] there.") == ("Hello there.", None)
    assert "[excited] is not one of the emotions neutral, happy" in caplog.text


@pytest.mark.parametrize("split", [split_sentences, split_reply])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_speech_is_split_into_sentences_at_tags(split, size):
    text = "[happy] Good morning, my dear friends! It is [sad:0.5] raining [angry] again."
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    sentences = [take_emotion(sentence) for sentence in split(pieces)]
    assert " ".join(s for s, _ in sentences) == (
        "Good morning, my dear friends! It is raining again."
    )
    assert ("raining", Emotion("sad", 0.5)) in sentences
    assert ("again.", Emotion("angry")) in sentences
    assert sentences[0][1] == Emotion("happy")


def test_voice_gets_no_tags_and_chunks_carry_the_emotion():
    voice = Recorder()
    sentences = iter(["[happy] One.", "Two.", "[sad]", "Three.", "[neutral] Four."])
    synthesizer = SentenceSynthesizer(sentences, voice)
    chunks = list(synthesizer.chunks())
    assert voice.texts == ["One.", "Two.", "Three.", "Four."]
    assert [sentence.text for sentence in synthesizer.spoken] == voice.texts
    changes = {round(0.1 * i, 1): c.emotion for i, c in enumerate(chunks) if c.emotion}
    assert changes == {0: Emotion("happy"), 1: Emotion("sad"), 1.5: Emotion("neutral")}


class MoodyRecorder(Recorder):
    """A voice with emotions that records the emotion of each text."""

    def __init__(self, texts, emotion=None):
        self.texts, self.emotion = texts, emotion

    def with_emotion(self, emotion):
        return MoodyRecorder(self.texts, emotion)

    def speak(self, text, cancel=None):
        self.texts.append((text, self.emotion))
        yield np.full(RATE // 2, 0.1, np.float32)


class Unaligned:
    """An aligner that finds no phonemes."""

    def align(self, samples, sample_rate, text):
        return ()


@pytest.mark.parametrize("align", [False, True])
def test_voice_with_emotions_follows_the_tags(align):
    texts = []
    tts = MoodyRecorder(texts)
    voice = Voice(AlignedTextToSpeech(tts, Unaligned()) if align else tts, loudness_lufs=None)
    sentences = iter(["One.", "[happy] Two.", "Three.", "[neutral] Four."])
    assert list(SentenceSynthesizer(sentences, voice).chunks())
    happy, neutral = Emotion("happy"), Emotion("neutral")
    assert texts == [("One.", None), ("Two.", happy), ("Three.", happy), ("Four.", neutral)]


def test_speech_stream_keeps_the_emotions_with_their_times():
    stream = speak_text("[happy] One is here. [sad] Two is there.", Recorder())
    assert sum(map(len, stream.read(RATE))) == RATE
    assert [stream.emotions.at(t) for t in (0.2, 0.6)] == [Emotion("happy"), Emotion("sad")]


def test_processed_speech_keeps_emotions_and_phonemes():
    chunks = [
        TimedSpeech(np.zeros(10, np.float32), (Phoneme("p", 0.0, 0.1),), Emotion("happy")),
        TimedSpeech(np.zeros(10, np.float32), (), Emotion("sad")),
    ]
    processed = list(process_timed(chunks, lambda samples: samples, 100, 100))
    assert [chunk.emotion for chunk in processed] == [Emotion("happy"), Emotion("sad")]
    joined = list(process_timed(chunks, lambda s: iter([np.concatenate(list(s))]), 100, 100))
    assert [chunk.emotion for chunk in joined] == [Emotion("sad")]


def test_language_model_is_asked_for_tags_if_enabled():
    history = [Message("user", "Hi.")]
    plain, tagged = (previous_messages("Be brief.", history, 20, tags) for tags in (False, True))
    assert plain == [Message("system", "Be brief."), *history]
    assert tagged[0].content.startswith("Be brief. ")
    assert all(f"[{name}]" in tagged[0].content for name in EMOTIONS)
    assert previous_messages(None, [], 20, True)[0].role == "system"


def test_unknown_emotions_are_reported_once_and_empty_brackets_never(caplog):
    assert take_emotion("Hi [sighs] you [sighs] and [") == ("Hi you and", None)
    assert [record.args[0] for record in caplog.records] == ["[sighs]"]
