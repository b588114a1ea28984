from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.media_files import smooth
from helpers.small_predictor import HEIGHT, WIDTH, make_predictor

from talkinghead.live.streaming import RealtimeLipSync
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.head.motion.speech_motion import (
    LOOKAHEAD_S,
    SpeechGesture,
    SpeechMotion,
)
from talkinghead.types import AudioClip, AVSpec

SPEC = AVSpec()
RATE = SPEC.sample_rate
STRESSED_S = (0.7, 1.5, 3.6)
"""Times of the loud syllables of `speech`."""


def speech():
    """Return 4.5 s of voiced syllables, three of them loud, with a pause from 2.1 to 3.1 s."""
    time_s = np.arange(round(4.5 * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 120 * n * time_s) / n for n in range(1, 8))
    level = 0.03 * np.abs(np.sin(np.pi * 4 * time_s))
    for stressed_s in STRESSED_S:
        level += 0.2 * np.exp(-(((time_s - stressed_s) / 0.06) ** 2))
    level *= (time_s > 0.2) & ((time_s < 2.1) | (time_s > 3.1)) & (time_s < 4.0)
    return (level * voice).astype(np.float32)


def gestures(samples, chunk=None):
    motion = SpeechMotion(SPEC)
    for part in np.split(samples, range(chunk or len(samples), len(samples), chunk or 1)):
        motion.push(part)
    return [motion.at(index / 25) for index in range(round(25 * len(samples) / RATE) - 3)]


def test_motion_does_not_depend_on_the_chunks():
    samples = speech()
    assert gestures(samples) == gestures(samples, 333)


def test_motion_depends_on_speech_up_to_the_lookahead_only():
    samples = speech()
    changed = samples.copy()
    time_s = 1.2
    changed[round((time_s + LOOKAHEAD_S) * RATE) :] = 0
    motions = [SpeechMotion(SPEC) for _ in range(2)]
    for motion, audio in zip(motions, (samples, changed), strict=True):
        motion.push(audio)
    assert motions[0].at(time_s) == motions[1].at(time_s)
    assert motions[0].at(time_s + 0.2) != motions[1].at(time_s + 0.2)


def test_head_nods_on_stressed_syllables():
    found = gestures(speech())
    stress = np.array([g.stress for g in found])
    # At activity 0, the poses of the phrases are 0, so that only nods are left.
    pitches = np.array([replace(g, activity=0.0).pose_deg(seed=0)[1] for g in found])
    # Leave out the first loud syllable: before it, quiet syllables are the loudest so far, and so
    # count as loud.
    for stressed_s in STRESSED_S[1:]:
        around = slice(round(25 * stressed_s) - 3, round(25 * stressed_s) + 3)
        assert stress[around].max() > 0.1
        assert pitches[around].max() > pitches[around.start - 5 : around.start].mean() + 0.8
    assert stress[round(2.5 * 25) : round(3.0 * 25)].max() < 0.01


def test_phrases_are_counted_and_turn_the_head():
    found = gestures(speech())
    assert [found[round(25 * t)].phrase for t in (0, 1, 2.8, 3.5)] == [0, 1, 1, 2]
    first, second = found[round(25 * 1.9)], found[round(25 * 3.9)]
    turns = [g.pose_deg(seed=1)[[0, 2]] for g in (first, second)]
    assert np.abs(turns[0] - turns[1]).max() > 0.5
    assert not np.allclose(first.pose_deg(seed=1), first.pose_deg(seed=2), atol=0.2)
    assert np.array_equal(found[0].pose_deg(seed=1), [0, 0, 0])


def test_some_phrases_end_with_a_blink():
    found = gestures(speech())
    blinks = [max(g.closure(seed) for g in found) for seed in range(20)]
    assert 4 < sum(blink > 0.9 for blink in blinks) < 18
    seed = int(np.argmax(blinks))
    times_s = [index / 25 for index, g in enumerate(found) if g.closure(seed) > 0.9]
    assert all(2.2 < time_s < 2.8 or time_s > 4 for time_s in times_s)


@pytest.mark.slow
def test_motion_of_ten_minutes_does_not_drift():
    samples, motion = speech(), SpeechMotion(SPEC)
    poses, brows = [], []
    for number in range(round(600 / 4.5)):
        motion.push(samples)
        for index in range(112):
            time_s = 4.5 * number + index / 25
            gesture = motion.at(time_s)
            poses.append(gesture.pose_deg(seed=1))
            brows.append(gesture.raised_brows.max())
        motion.drop_before(4.5 * number + 4)
        assert len(motion._gestures) < 600
    early, late = (np.array(poses[part]) for part in (slice(0, 5000), slice(-5000, None)))
    # Phrases turn the head at random by up to 5 degrees; nods and brows repeat with the speech.
    assert np.allclose(late.mean(0), early.mean(0), atol=0.8)
    assert np.allclose(late.std(0), early.std(0), rtol=0.3)
    assert np.mean(brows[-5000:]) == pytest.approx(np.mean(brows[:5000]), rel=0.1)


def test_silence_gives_no_motion_and_dropped_speech_keeps_the_last():
    motion = SpeechMotion(SPEC)
    assert motion.at(3.0) == SpeechGesture()
    motion.push(np.zeros(RATE, np.float32))
    assert not motion.at(0.5).pose_deg(seed=0).any()
    motion.push(speech())
    expected, last = motion.at(2.0), motion.at(100.0)
    motion.drop_before(1.9)
    assert motion.at(2.0) == expected
    motion.drop_before(100.0)
    assert motion.at(100.0) == last


@pytest.mark.parametrize("chunk", [640, pytest.param(5000, marks=pytest.mark.slow)])
def test_stream_and_file_have_the_same_head_motion(chunk):
    predictor = make_predictor()
    photo = smooth(HEIGHT, WIDTH)
    samples = speech()[: round(0.8 * RATE)]
    avatar = predictor.avatar(photo, SourceOptions(motion="speech", seed=4))
    with predictor.predict(avatar, AudioClip(samples, RATE)) as prediction:
        expected = np.stack([image for image, _ in prediction]).astype(int)
    chunks = np.split(samples, range(chunk, len(samples), chunk))
    with RealtimeLipSync(avatar) as stream:
        found = np.stack([frame.image for frame in stream.stream(chunks)]).astype(int)
    # A difference of one level is amplified where the moved head is sharpened.
    assert np.abs(found - expected).max() <= 2
    idle = predictor.avatar(photo, SourceOptions(motion="idle", seed=4))
    with predictor.predict(idle, AudioClip(samples, RATE)) as prediction:
        other = np.stack([image for image, _ in prediction]).astype(int)
    assert np.abs(other - expected).max() > 5
