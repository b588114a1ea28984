"""Lip constraints by phonemes: timing, shape, and equality of streams and files."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.small_predictor import HEIGHT, STILL, WIDTH, make_predictor, speech

from talkinghead.live.streaming import RealtimeLipSync
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.phonemes import Phoneme, TimedSpeech
from talkinghead.predict.audio.visemes import MAX_REACH_S, constrain_lips, viseme_weights

PHONEMES = (Phoneme("p", 0.3, 0.35), Phoneme("u\u02d0", 0.35, 0.5), Phoneme("f", 0.8, 0.9))


def _gaps(lips):
    return lips[:, [19, 18, 17], 1] - lips[:, [13, 14, 15], 1]


def _width(lips):
    return lips[:, 6, 0] - lips[:, 0, 0]


@pytest.mark.parametrize(("symbol", "viseme"), [("m", 0), ("v", 1), ("w", 2), ("oʊ", 2)])
def test_dominance_rises_and_falls_smoothly_around_the_phoneme(symbol, viseme):
    times_s = np.arange(0, 2, 0.005)
    weights = viseme_weights([Phoneme(symbol, 1.0, 1.1)], times_s)
    dominance = weights[:, viseme]
    assert not np.delete(weights, viseme, 1).any()
    held = dominance[(times_s >= 1.0) & (times_s <= 1.1)]
    assert held.min() == dominance.max() > 0.7
    assert np.abs(np.diff(dominance)).max() < 0.15
    assert not dominance[(times_s < 1.0 - MAX_REACH_S) | (times_s > 1.1 + MAX_REACH_S)].any()
    assert np.all(np.diff(dominance[times_s < 1.0]) >= 0)
    assert np.all(np.diff(dominance[times_s > 1.1]) <= 0)


@pytest.mark.parametrize("fps", [15, 25, 60])
def test_short_closures_are_complete_in_one_frame_at_least(fps):
    times_s = (np.arange(3 * fps) + 0.5) / fps
    for start_s in np.arange(1.0, 1.1, 0.007):
        weights = viseme_weights([Phoneme("b", start_s, start_s + 0.01)], times_s, 1 / fps)
        assert weights[:, 0].max() == pytest.approx(1.0)


def test_other_phonemes_and_distant_times_have_no_weight():
    assert not viseme_weights([Phoneme("s", 0.0, 1.0), Phoneme("", 0.0, 1.0)], [0.5]).any()
    assert not viseme_weights([Phoneme("m", 0.0, 0.1)], [1.0]).any()


def test_closure_closes_an_open_mouth_at_any_articulation():
    lips = torch.zeros(3, 20, 2)
    lips[:, 17:20, 1] = torch.tensor([0.0, 10.0, 30.0])[:, None]
    for articulation in (1.0, 3.0):
        closed = constrain_lips(lips, torch.tensor([[1.0, 0.0, 0.0]] * 3), articulation)
        assert torch.allclose(_gaps(closed), torch.tensor(-5.0), atol=1e-5)
    half = constrain_lips(lips, torch.tensor([[0.5, 0.0, 0.0]] * 3))
    assert torch.allclose(_gaps(half)[2], torch.tensor(12.5), atol=1e-4)


def test_constraints_do_not_open_or_widen_the_mouth():
    lips = torch.zeros(1, 20, 2)
    lips[:, 17:20, 1] = -5.0
    lips[:, 0, 0], lips[:, 6, 0] = 20.0, -20.0
    assert torch.equal(constrain_lips(lips, torch.tensor([[1.0, 0.0, 1.0]])), lips)
    assert torch.equal(constrain_lips(lips, torch.zeros(1, 3)), lips)


def test_rounding_narrows_and_labiodental_raises_the_lower_lip():
    lips = torch.zeros(1, 20, 2)
    lips[:, 17:20, 1] = 12.0
    rounded = constrain_lips(lips, torch.tensor([[0.0, 0.0, 1.0]]), 2.0)
    assert _width(rounded).item() == pytest.approx(-10.0)
    assert 0 < _gaps(rounded).max() < 6
    teeth = constrain_lips(lips, torch.tensor([[0.0, 1.0, 0.0]]))
    assert _width(teeth).item() == 0
    assert teeth[0, 18, 1] < 2
    assert _gaps(teeth).min() > _gaps(constrain_lips(lips, torch.tensor([[1.0, 0, 0]]))).max()


def _frames(predictor, chunks):
    image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    return np.stack([f for f, _ in predictor.predict(image, SpeechStream(chunks, 16_000), STILL)])


def test_chunked_stream_gives_the_frames_of_the_whole_speech():
    predictor, samples = make_predictor(), speech(1.2).samples
    whole = _frames(predictor, [TimedSpeech(samples, PHONEMES)])
    plain = _frames(predictor, [samples])
    near = [any(p.start_s < (n + 0.5) / 25 < p.end_s for p in PHONEMES) for n in range(30)]
    assert np.abs(whole.astype(int) - plain).max(axis=(1, 2, 3))[near].min() > 20
    assert np.abs(whole.astype(int) - plain).max(axis=(1, 2, 3))[-2:].max() <= 2
    chunks = []
    for start in range(0, len(samples), 700):
        begin_s = start / 16_000
        begun = [p for p in PHONEMES if begin_s <= p.start_s < begin_s + 700 / 16_000]
        phonemes = tuple(p.later(-begin_s) for p in begun)
        chunks.append(TimedSpeech(samples[start : start + 700], phonemes))
    assert np.abs(_frames(predictor, chunks).astype(int) - whole).max() <= 1
    image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    with RealtimeLipSync(predictor.avatar(image, STILL)) as stream:
        for num_chunks in (10, len(chunks)):  # A new stream begins again at time 0.
            live = np.stack([frame.image for frame in stream.stream(chunks[:num_chunks])])
            same = slice(len(live) - 5)
            assert np.abs(live.astype(int) - whole[: len(live)])[same].max() <= 1
            stream.reset()


def test_option_turns_the_constraints_off():
    samples = speech(0.6).samples
    off = make_predictor(phonemes=False)
    timed = _frames(off, [TimedSpeech(samples, PHONEMES)])
    assert np.array_equal(timed, _frames(off, [samples]))


def test_memory_of_past_phonemes_is_freed():
    mouths = make_predictor().mouth_generator()
    avatar = make_predictor().avatar(np.full((HEIGHT, WIDTH, 3), 120, np.uint8), STILL)
    mouths.tokens.push(speech(4.0).samples)
    mouths.phonemes.add(Phoneme("m", n / 10, n / 10 + 0.1) for n in range(40))
    (frame,) = avatar.face_frames[0]
    late = type(frame)(**{**vars(frame), "time_s": Fraction(3)})
    list(mouths.generate([late]))
    assert mouths.phonemes.between(0, 4)[0].end_s >= 3 - MAX_REACH_S
