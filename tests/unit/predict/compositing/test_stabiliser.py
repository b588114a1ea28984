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


def test_first_frame_after_reset_and_constant_fields_are_unchanged():
    stabiliser = MouthStabiliser()
    stabiliser(_fields(level=0.0), 0.0)
    stabiliser.reset()
    fields = _fields(level=0.004)
    for time_s in (0.04, 0.08):
        assert np.array_equal(stabiliser(fields, time_s).flow, fields.flow)


def test_cutoff_does_not_depend_on_frame_rate():
    def after_a_second(fps):
        one_euro = OneEuroFilter(min_cutoff_hz=0.2, speed_coefficient=0.0)
        one_euro(np.zeros(1, np.float32), 0.0)
        for i in range(1, fps + 1):
            value = one_euro(np.ones(1, np.float32), i / fps)
        return float(value[0])

    assert abs(after_a_second(25) - after_a_second(60)) < 0.02


@pytest.mark.parametrize("hz", [2, 6])
def test_delay_of_speech_motion_is_a_fraction_of_a_frame(hz):
    """The flow varies by 0.5 % of the box, as in the clips of docs/rendering.md."""
    stabiliser = MouthStabiliser()
    inputs = 0.005 * np.sqrt(2) * np.sin(2 * np.pi * hz * np.arange(100) / 25)
    outputs = [stabiliser(_fields(i, level), i / 25).flow.mean() for i, level in enumerate(inputs)]
    wave = np.exp(-2j * np.pi * hz * np.arange(75) / 25)
    before, after = (np.vdot(wave, x[25:] - np.mean(x[25:])) for x in (inputs, outputs))
    assert 0 < 1000 * np.angle(after / before) / (2 * np.pi * hz) < 15
    assert np.std(outputs[25:]) > 0.85 * np.std(inputs[25:])
