"""Speech synthesised sentence by sentence, for videos and for real-time streams."""

import numpy as np
import pytest
from helpers.small_predictor import make_predictor
from helpers.speech_services import ToneTextToSpeech

from talkinghead.live.streaming import RealtimeLipSync
from talkinghead.speech.sentence_speech import speak_text, stream_sentences


@pytest.fixture(scope="module")
def avatar():
    return make_predictor().avatar(np.full((160, 192, 3), 120, np.uint8))


def test_long_text_is_synthesised_on_demand(avatar):
    voice = ToneTextToSpeech()
    stream = speak_text("No full stop in it " * 5300, voice, "en")
    with avatar.predictor.predict(avatar, stream) as prediction:
        for _ in range(50):
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
