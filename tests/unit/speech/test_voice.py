"""Post-processing of a voice: pauses, sample rate, loudness and cancellation."""

from threading import Event

import numpy as np
import pytest
from helpers.speech_services import TimedToneTextToSpeech

from talkinghead.speech.sentence_speech import stream_timed_sentences
from talkinghead.speech.voice import Voice

RATE = 22_050


class HummingTextToSpeech:
    """A voice that hums 0.1 s per letter, in chunks of `size` samples."""

    sample_rate = RATE

    def __init__(self, size=1000):
        self._size = size
        self.num_chunks = 0

    def speak(self, text, cancel=None):
        letters = sum(map(str.isalpha, text))
        hum = 0.1 * np.sin(np.arange(letters * RATE // 10) * 2 * np.pi * 220 / RATE)
        for start in range(0, len(hum), self._size):
            self.num_chunks += 1
            yield hum[start : start + self._size].astype(np.float32)


def _speak(voice, *sentences):
    chunks = [chunk for sentence in sentences for chunk in voice.speak(sentence)]
    return np.concatenate([*chunks, np.zeros(0, np.float32)])


def test_pauses_are_digital_silence_of_the_given_length():
    speech = _speak(Voice(HummingTextToSpeech(), lead_s=0.2, pause_s=0.5), "aaaaaaaaaa", "b" * 10)
    lead, hum, pause = RATE // 5, RATE, RATE // 2
    assert len(speech) == 2 * (lead + hum + pause)
    for start in (0, lead + hum + pause):
        assert not speech[start : start + lead].any()
        assert np.abs(speech[start + lead : start + lead + hum]).max() > 0.05
        assert not speech[start + lead + hum : start + lead + hum + pause].any()


@pytest.mark.parametrize("sample_rate", [16_000, 48_000])
def test_speech_is_resampled(sample_rate):
    voice = Voice(HummingTextToSpeech(), sample_rate=sample_rate, lead_s=0, pause_s=0)
    speech = _speak(voice, "a" * 10)
    assert voice.sample_rate == sample_rate
    assert len(speech) == pytest.approx(sample_rate, abs=32)
    spectrum = np.abs(np.fft.rfft(speech))
    assert np.argmax(spectrum) * sample_rate / len(speech) == pytest.approx(220, abs=1)


def test_phonemes_and_emotion_are_kept_without_silence_before_the_speech():
    voice = Voice(TimedToneTextToSpeech(word_s=0.25), lead_s=0)
    chunks = list(stream_timed_sentences(["[happy] One two."], voice, sample_rate=16_000))
    assert [phoneme.symbol for chunk in chunks for phoneme in chunk.phonemes] == ["o", "t"]
    assert [chunk.emotion.name for chunk in chunks if chunk.emotion] == ["happy"]


def test_loudness_normalisation_is_optional():
    speech = _speak(Voice(HummingTextToSpeech(), loudness_lufs=None, lead_s=0), "aaaa")
    assert np.abs(speech).max() == pytest.approx(0.1, abs=1e-3)
    assert np.abs(_speak(Voice(HummingTextToSpeech(), loudness_lufs=-14.0), "a" * 20)).max() > 0.2


def test_cancellation_stops_speech_at_the_next_chunk():
    tts, cancel = HummingTextToSpeech(), Event()
    spoken = Voice(tts, loudness_lufs=None).speak("a" * 100, cancel)
    next(spoken)
    cancel.set()
    assert not list(spoken)
    assert tts.num_chunks <= 3
    assert not list(Voice(HummingTextToSpeech()).speak("a" * 100, cancel))
    assert not list(Voice(HummingTextToSpeech()).speak("..."))


def test_nan_counts_as_silence():
    class NanTextToSpeech(HummingTextToSpeech):
        def speak(self, text, cancel=None):
            yield np.full(4000, np.nan, np.float32)
            yield from super().speak(text)

    assert np.isfinite(_speak(Voice(NanTextToSpeech()), "aaaaaaaaa")).all()


def test_voice_without_phonemes_is_logged(caplog):
    with caplog.at_level("INFO"):
        Voice(HummingTextToSpeech())
    assert "the voice gives no phonemes" in caplog.text
    assert "voice.align=true" in caplog.text
