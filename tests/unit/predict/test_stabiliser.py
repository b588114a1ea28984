import numpy as np

from talkinghead.predict.stabiliser import MouthFields, MouthStabiliser, OneEuroFilter


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
