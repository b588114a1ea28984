import numpy as np
import pytest

from talkinghead.predict.compositing.stabiliser import MouthFields, MouthStabiliser, OneEuroFilter


def _fields(seed=0, level=0.0):
    rng = np.random.default_rng(seed)
    return MouthFields(
        flow=(level + 0.0005 * rng.standard_normal((48, 48, 2))).astype(np.float32),
        rgb=np.full((96, 96, 3), 0.5, np.float32),
        mask=np.full((96, 96), 0.5, np.float32),
    )


def test_jitter_is_smoothed():
    stabiliser = MouthStabiliser()
    inputs = [_fields(seed) for seed in range(50)]
    outputs = [stabiliser(fields, i / 25).flow for i, fields in enumerate(inputs)]
    before = np.std([fields.flow for fields in inputs[10:]])
    assert np.std(outputs[10:]) < 0.75 * before


def test_opening_mouth_is_not_delayed():
    stabiliser = MouthStabiliser()
    stabiliser(_fields(level=0.0), 0.0)
    moved = stabiliser(_fields(level=0.1), 0.04).flow.mean()
    assert moved > 0.08


def test_constant_fields_are_unchanged():
    fields = _fields()
    stabiliser = MouthStabiliser()
    for i in range(5):
        outputs = stabiliser(fields, i / 25)
    assert np.array_equal(outputs.flow, fields.flow)


def test_first_frame_after_reset_is_unchanged():
    stabiliser = MouthStabiliser()
    stabiliser(_fields(level=0.0), 0.0)
    stabiliser.reset()
    fields = _fields(level=0.004)
    assert np.array_equal(stabiliser(fields, 0.04).flow, fields.flow)


def test_cutoff_does_not_depend_on_frame_rate():
    def after_a_second(fps):
        one_euro = OneEuroFilter(min_cutoff_hz=0.2, speed_coefficient=0.0)
        one_euro(np.zeros(1, np.float32), 0.0)
        for i in range(1, fps + 1):
            value = one_euro(np.ones(1, np.float32), i / fps)
        return float(value[0])

    assert abs(after_a_second(25) - after_a_second(60)) < 0.02


def _delay_ms(inputs, outputs, hz, fps):
    """Return the delay of one oscillation relative to another."""
    wave = np.exp(-2j * np.pi * hz * np.arange(len(inputs)) / fps)
    turn = np.angle(np.vdot(wave, outputs - outputs.mean()) / np.vdot(wave, inputs - inputs.mean()))
    return 1000 * turn / (2 * np.pi * hz)


@pytest.mark.parametrize("hz", [2, 6])
def test_delay_of_speech_motion_is_a_fraction_of_a_frame(hz):
    """The flow varies by 0.5 % of the box, as in the clips of docs/rendering.md."""
    stabiliser = MouthStabiliser()
    inputs = 0.005 * np.sqrt(2) * np.sin(2 * np.pi * hz * np.arange(100) / 25)
    outputs = [stabiliser(_fields(i, level), i / 25).flow.mean() for i, level in enumerate(inputs)]
    delay_ms = _delay_ms(inputs[25:], np.array(outputs[25:]), hz, 25)
    assert 0 < delay_ms < 15
    assert np.std(outputs[25:]) > 0.85 * np.std(inputs[25:])
