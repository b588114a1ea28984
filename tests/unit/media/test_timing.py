"""Exact conversions of time."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest

from talkinghead.media.timing import (
    frame_time_s,
    mel_centre,
    mel_window_start,
    num_frames_for,
    round_half_up,
    samples_to_seconds,
    seconds_to_samples,
)
from talkinghead.types import AVSpec

NTSC = Fraction(30_000, 1001)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(Fraction(1, 2), 1), (Fraction(3, 2), 2), (Fraction(5, 2), 3), (Fraction(-1, 2), 0), (2.4, 2)],
)
def test_halves_are_rounded_up(value, expected):
    assert round_half_up(value) == expected


@pytest.mark.parametrize("sample_rate", [16_000, 22_050])
def test_samples_to_seconds_is_inverted_exactly(sample_rate):
    for num_samples in (0, 1, 999, 12_345_678):
        duration_s = samples_to_seconds(num_samples, sample_rate)
        assert seconds_to_samples(duration_s, sample_rate) == num_samples


def test_hour_of_ntsc_video_does_not_drift():
    frames = 107_892
    assert frame_time_s(frames, NTSC) == Fraction(frames * 1001, 30_000)
    assert num_frames_for(frame_time_s(frames, NTSC), NTSC) == frames


def test_number_of_frames_is_rounded_up_to_at_least_one():
    assert num_frames_for(Fraction(1), Fraction(25)) == 25
    assert num_frames_for(Fraction(1) + Fraction(1, 16_000), Fraction(25)) == 26
    assert num_frames_for(Fraction(0), Fraction(25)) == 1


@pytest.mark.parametrize("fps", [Fraction(25), NTSC, Fraction(15, 2)])
def test_mel_window_is_centred_on_the_frame(fps):
    spec = AVSpec()
    for frame in (0, 1, 2, 100, 99_999):
        middle_s = frame_time_s(frame, fps) + 1 / fps / 2
        window_middle_s = (
            mel_window_start(frame, fps, spec) + Fraction(spec.mel_window, 2)
        ) / spec.mels_per_second
        assert abs(window_middle_s - middle_s) <= 1 / spec.mels_per_second / 2
        assert mel_centre(frame, fps, spec) - mel_window_start(frame, fps, spec) == 8


def test_windows_advance_evenly_at_25_fps():
    spec = AVSpec()
    starts = [mel_window_start(frame, Fraction(25), spec) for frame in range(100)]
    # 3.2 mel frames per video frame: steps of 3 and 4.
    assert {b - a for a, b in pairwise(starts)} == {3, 4}
    assert starts[0] == -6
    assert starts[50] - starts[0] == 160
