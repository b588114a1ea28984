"""Speech synthesised sentence by sentence, for videos and for real-time streams."""

import numpy as np
import pytest
from helpers.small_predictor import STILL, make_predictor
from helpers.speech_services import TimedToneTextToSpeech, ToneTextToSpeech

from talkinghead.errors import MediaError
from talkinghead.live.streaming import RealtimeLipSync
from talkinghead.speech.sentence_speech import (
    speak_text,
    stream_sentences,
    stream_timed_sentences,
)
from talkinghead.speech.tts.text.text_cleaner import TextCleaner
from talkinghead.speech.voice import Voice


@pytest.fixture(scope="module")
def avatar():
    return make_predictor().avatar(np.full((160, 192, 3), 120, np.uint8), STILL)


def test_long_text_is_synthesised_on_demand(avatar):
    voice = ToneTextToSpeech()
    stream = speak_text("No full stop in it " * 5300, voice, "en")
    with avatar.predictor.predict(avatar, stream) as prediction:
        for _ in range(20):
            next(prediction)
    assert 1 <= len(voice.spoken) < 12
    assert all(len(text) <= 250 for text in voice.spoken)


def test_streamed_sentences_drive_a_realtime_stream(avatar):
    with RealtimeLipSync(avatar) as stream:
        pieces = ["Hello ", "there. ", "How are", " you?"]
        speech = list(stream_sentences(pieces, ToneTextToSpeech(), sample_rate=stream.sample_rate))
        frames = list(stream.stream(speech))
    assert max(map(len, speech)) <= 1600
    assert len(frames) == round(0.1 * 5 * 25) + 1
    resampled = list(stream_sentences(pieces, ToneTextToSpeech(), sample_rate=48_000))
    assert sum(map(len, resampled)) == pytest.approx(3 * sum(map(len, speech)), abs=64)


def test_sentence_is_streamed_while_text_is_written():
    voice, written = ToneTextToSpeech(), []

    def write():
        for number in range(100):
            written.append(number)
            yield f"Sentence {number} is here. "

    speech = stream_sentences(write(), voice)
    next(speech)
    assert len(written) < 30
    speech.close()


@pytest.mark.parametrize("sample_rate", [16_000, 22_050])
def test_phonemes_have_their_times_in_the_whole_speech(sample_rate):
    tones = TimedToneTextToSpeech(word_s=0.25)
    voice = Voice(tones, sample_rate=sample_rate, lead_s=0.2, pause_s=0.3)
    expected = [("o", 0.2), ("t", 0.45), ("m", 1.2), ("p", 1.45)]
    stream = speak_text("One two. My phone.", voice, "en")
    num_samples = sum(map(len, stream.read(16_000)))
    assert num_samples == pytest.approx(2.0 * 16_000, abs=64)
    assert [(p.symbol, round(p.start_s, 2)) for p in stream.phonemes.between(0, 3)] == expected
    start_s, found = 0.0, []
    for chunk in stream_timed_sentences(["One two. My ", "phone."], voice, sample_rate=16_000):
        found += [(p.symbol, round(start_s + p.start_s, 2)) for p in chunk.phonemes]
        start_s += len(chunk.samples) / 16_000
    assert found == expected


@pytest.mark.parametrize(
    ("markup", "pause_s"),
    [
        ('<break time="1s"/>', 1.0),
        ("<break time='700ms'></break>", 0.7),
        ('<break time="0.5s"/> <break strength="strong"/>', 1.5),
        ("<break/>", 0.75),
        ('<break time="1h"/>', 0.75),
        ('<break time="0ms"/>', 0.0),
        ('<break time="0.2s"/>', 0.35),
        ('<break time="60s"/>', 10.0),
    ],
)
def test_breaks_are_pauses_of_their_length(markup, pause_s):
    voice = Voice(ToneTextToSpeech(), lead_s=0.1, pause_s=0.25)
    stream = speak_text(f"<speak>Hello{markup}world</speak>", voice)
    samples = np.concatenate(list(stream.read(voice.sample_rate)))
    sounding = np.flatnonzero(np.abs(samples) > 1e-3)
    longest = np.diff(sounding).max() / voice.sample_rate
    assert longest == pytest.approx(pause_s, abs=0.02)


def test_break_before_the_first_word_is_silence():
    voice = Voice(ToneTextToSpeech(), lead_s=0.1)
    stream = speak_text('<break time="1s"/>Hello', voice)
    samples = np.concatenate(list(stream.read(voice.sample_rate)))
    first = np.flatnonzero(np.abs(samples) > 1e-3)[0]
    assert first / voice.sample_rate == pytest.approx(1.0, abs=0.02)


def test_breaks_without_words_are_not_speech():
    stream = speak_text('<break time="3s"/><break/>', ToneTextToSpeech())
    with pytest.raises(MediaError, match="give some speech"):
        list(stream.read(16_000))


@pytest.mark.parametrize(
    "text",
    [
        "Use the &lt;b&gt; tag",
        "<speak><![CDATA[Use the <b> tag]]></speak>",
        "Use the \x1b[1m&lt;b&gt;\x1b[0m tag",
    ],
)
def test_escaped_tags_and_words_with_colour_codes_are_spoken(text):
    class CleaningVoice(ToneTextToSpeech):
        cleaned = ""

        def speak(self, text, cancel=None):
            self.cleaned += " ".join(TextCleaner("en").sentences(text))
            return super().speak(text, cancel)

    voice = CleaningVoice()
    speech = speak_text(text, Voice(voice), "en")
    assert sum(map(len, speech.read(16_000)))
    assert voice.cleaned == "Use the <b> tag"
