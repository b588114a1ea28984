"""Tracks of phonemes, and phonemes of processed speech."""

import numpy as np
import pytest

from talkinghead.media.audio_decoding import Resampler, rechunk
from talkinghead.predict.audio.audio_source import Speech, SpeechStream
from talkinghead.predict.audio.phonemes import Phoneme, PhonemeTrack, TimedSpeech, process_timed


def _samples(duration_s, rate=16_000):
    return np.full(round(duration_s * rate), 0.1, np.float32)


def test_track_returns_overlapping_phonemes_and_drops_old_ones():
    track = PhonemeTrack()
    track.add([Phoneme("p", 0.1, 0.2), Phoneme("a", 0.2, 0.4)], offset_s=1.0)
    assert [p.symbol for p in track.between(1.15, 1.2)] == ["p"]
    assert [p.symbol for p in track.between(0.0, 5.0)] == ["p", "a"]
    track.drop_before(1.25)
    assert [(p.symbol, p.start_s) for p in track.between(0.0, 5.0)] == [("a", pytest.approx(1.2))]
    track.clear()
    assert not track.between(0.0, 5.0)


def test_stream_collects_the_phonemes_of_its_chunks():
    chunks = [
        TimedSpeech(_samples(0.5)),
        _samples(0.25),
        TimedSpeech(_samples(0.5), (Phoneme("m", 0.1, 0.2),)),
    ]
    stream = SpeechStream(chunks, 16_000)
    reader = Speech(stream).chunks(16_000)
    assert not Speech(stream).phonemes.between(0, 2)
    assert sum(map(len, reader)) == 20_000
    assert Speech(stream).phonemes.between(0, 2) == [Phoneme("m", 0.85, 0.95)]


def test_processed_speech_keeps_each_phoneme_once_at_its_time():
    speech = [
        TimedSpeech(_samples(1.0, 22_050), (Phoneme("p", 0.5, 0.6), Phoneme("o", 0.6, 0.8))),
        TimedSpeech(_samples(1.0, 22_050), (Phoneme("m", 0.0, 0.1),)),
    ]

    def process(chunks):
        delayed = [_samples(0.3), *Resampler(22_050, 16_000).stream(chunks)]
        return rechunk(delayed, 1000)

    start_s, found = 0.0, []
    for chunk in process_timed(speech, process, 22_050, 16_000, delay_s=0.3):
        found += [(p.symbol, round(p.later(start_s).start_s, 6)) for p in chunk.phonemes]
        assert all(p.start_s >= 0 for p in chunk.phonemes)
        start_s += len(chunk.samples) / 16_000
    assert found == [("p", 0.8), ("o", 0.9), ("m", 1.3)]
