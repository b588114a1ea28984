"""Turns are detected in speech, and not in noise."""

import numpy as np
import pytest

from talkinghead.live.session.turn_detector import detect_turns
from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import DEMO_SPEECH

pytest.importorskip("faster_whisper")
RATE = 16_000


def silence(duration_s):
    return np.zeros(round(duration_s * RATE), np.float32)


@pytest.fixture(scope="module")
def speech():
    return read_audio(DEMO_SPEECH, RATE).samples[: 2 * RATE]


def events_of(*parts, rate=RATE, **options):
    audio = np.concatenate(parts)
    return list(detect_turns(np.array_split(audio, max(1, len(audio) // 320)), rate, **options))


def test_turn_starts_pauses_and_ends(speech):
    events = events_of(silence(1), speech, silence(1), speech, silence(1))
    kinds = [event.kind for event in events if event.kind in ("start", "end")]
    assert kinds == ["start", "end"] * 2
    ends = [event for event in events if event.kind == "end"]
    assert 1.5 < len(ends[0].samples) / RATE < 3.2
    assert 0.5 < ends[0].silence_s < 0.7
    before = events[events.index(ends[0]) - 1]
    assert before.kind == "pause"
    assert len(before.samples) < len(ends[0].samples)


def test_short_pause_does_not_end_a_turn(speech):
    events = events_of(
        silence(0.5), speech, silence(0.4), speech, silence(1.5), pause_s=0.2, end_s=1
    )
    kinds = [event.kind for event in events]
    assert (kinds.count("start"), kinds.count("end")) == (1, 1)
    assert "resume" in kinds


def test_noise_and_clicks_do_not_start_a_turn():
    noise = 0.05 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    click = silence(1)
    click[8000:8400] = 0.8
    assert events_of(noise, click, np.full(1600, np.nan, np.float32), silence(1)) == []


def test_long_turn_is_ended(speech):
    events = events_of(*[speech] * 4, max_s=3.0)
    lengths_s = [len(event.samples) / RATE for event in events if event.kind == "end"]
    assert lengths_s
    assert max(lengths_s) <= 3.1
