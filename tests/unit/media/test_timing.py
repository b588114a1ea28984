"""Exact conversions of time."""

from fractions import Fraction

import pytest

from talkinghead.media.timing import (
    frame_time_s,
    mel_window_start,
    num_frames_for,
    round_half_up,
    samples_to_seconds,
    seconds_to_samples,
)
from talkinghead.types import AVSpec

NTSC = Fraction(30_000, 1001)


def test_halves_are_rounded_up():
    values = (Fraction(1, 2), Fraction(3, 2), Fraction(5, 2), Fraction(-1, 2), 2.4)
    assert [round_half_up(value) for value in values] == [1, 2, 3, 0, 2]


def test_time_conversions_are_exactly_invertible_after_an_hour():
    assert seconds_to_samples(samples_to_seconds(57_600_001, 22_050), 22_050) == 57_600_001
    assert frame_time_s(107_892, NTSC) == Fraction(107_892 * 1001, 30_000)
    assert num_frames_for(frame_time_s(107_892, NTSC), NTSC) == 107_892
    # The number of frames is rounded up to at least one.
    assert [num_frames_for(Fraction(n, 1000), Fraction(25)) for n in (0, 40, 41)] == [1, 1, 2]


@pytest.mark.parametrize("fps", [Fraction(25), NTSC, Fraction(15, 2)])
def test_mel_window_is_centred_on_the_frame(fps):
    spec = AVSpec()
    for frame in (0, 1, 2, 100, 107_892):
        middle_s = (frame + Fraction(1, 2)) / fps
        window_middle = mel_window_start(frame, fps, spec) + Fraction(spec.mel_window, 2)
        assert abs(window_middle - middle_s * spec.mels_per_second) <= Fraction(1, 2)
