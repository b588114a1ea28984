from fractions import Fraction

import numpy as np
import pytest

from talkinghead.features.faces.alignment import invert, smooth_transforms
from talkinghead.predict.compositing.stabiliser import MouthFields, MouthStabiliser, OneEuroFilter
from talkinghead.types import AVSpec


def _fields(seed=0, level=0.0):
    rng = np.random.default_rng(seed)
    return MouthFields(
        flow=(level + 0.0005 * rng.standard_normal((48, 48, 2))).astype(np.float32),
        rgb=np.full((96, 96, 3), 0.5, np.float32),
        mask=np.full((96, 96), 0.5, np.float32),
    )


def test_jitter_is_smoothed():
    stabiliser = MouthStabiliser()
    given = [_fields(seed) for seed in range(50)]
    got = [stabiliser(fields, i / 25).flow for i, fields in enumerate(given)]
    before = np.std([fields.flow for fields in given[10:]])
    assert np.std(got[10:]) < 0.75 * before


def test_an_opening_mouth_is_not_held_back():
    stabiliser = MouthStabiliser()
    stabiliser(_fields(level=0.0), 0.0)
    moved = stabiliser(_fields(level=0.1), 0.04).flow.mean()
    assert moved > 0.08


def test_what_stands_still_is_kept_exactly():
    fields = _fields()
    stabiliser = MouthStabiliser()
    for i in range(5):
        got = stabiliser(fields, i / 25)
    assert np.array_equal(got.flow, fields.flow)


def test_reset_lets_the_next_frame_through_unchanged():
    stabiliser = MouthStabiliser()
    stabiliser(_fields(level=0.0), 0.0)
    stabiliser.reset()
    fields = _fields(level=0.004)
    assert np.array_equal(stabiliser(fields, 0.04).flow, fields.flow)


def test_the_cut_off_does_not_depend_on_the_frame_rate():
    def after_a_second(fps):
        one_euro = OneEuroFilter(min_cutoff_hz=0.2, speed_coefficient=0.0)
        one_euro(np.zeros(1, np.float32), 0.0)
        for i in range(1, fps + 1):
            value = one_euro(np.ones(1, np.float32), i / fps)
        return float(value[0])

    assert abs(after_a_second(25) - after_a_second(60)) < 0.02


def _lag_ms(given, got, hz, fps):
    """How far the oscillation of one series is behind that of another."""
    wave = np.exp(-2j * np.pi * hz * np.arange(len(given)) / fps)
    turn = np.angle(np.vdot(wave, got - got.mean()) / np.vdot(wave, given - given.mean()))
    return 1000 * turn / (2 * np.pi * hz)


@pytest.mark.parametrize("hz", [2, 4, 6])
def test_the_mouths_lag_at_the_rates_of_speech_is_a_small_part_of_a_frame(hz):
    """Amplitude: a flow that varies by 0.5 % of the box, as in the clips of docs/rendering.md."""
    stabiliser = MouthStabiliser()
    given = 0.005 * np.sqrt(2) * np.sin(2 * np.pi * hz * np.arange(100) / 25)
    got = [stabiliser(_fields(i, level), i / 25).flow.mean() for i, level in enumerate(given)]
    lag_ms = _lag_ms(given[25:], np.array(got[25:]), hz, 25)
    assert 0 < lag_ms < 15
    assert np.std(got[25:]) > 0.85 * np.std(given[25:])


def test_the_faces_filter_has_no_lag():
    """It is centred, and its look-ahead waited for: box and landmarks reach the picture through it
    alone.
    """
    spec, hz = AVSpec(), 0.5
    x = 20 * np.sin(2 * np.pi * hz * np.arange(150) / 25)
    transforms = np.float32([[[1, 0, v], [0, 1, 0.3 * v]] for v in x])
    smoothed = smooth_transforms(transforms, Fraction(25), spec)
    got = np.array([-invert(t)[0, 2] for t in smoothed])
    assert abs(_lag_ms(x[25:-25], got[25:-25], hz, 25)) < 0.5
    assert np.std(got[25:-25]) > 0.95 * np.std(x[25:-25])
