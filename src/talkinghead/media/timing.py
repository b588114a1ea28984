"""Conversions between seconds, audio samples, mel frames and video frames.

Times are exact fractions, as times computed from rounded frame rates drift.
"""

from __future__ import annotations

import math
from fractions import Fraction

from talkinghead.types import AVSpec


def round_half_up(value: Fraction | float) -> int:
    """Return the nearest integer, with halves rounded up.

    `round` rounds halves to even integers, which makes the steps of a regular grid uneven.
    """
    return math.floor(value + Fraction(1, 2))


def seconds_to_samples(time_s: Fraction, sample_rate: int) -> int:
    """Return the index of the sample nearest to a time in seconds."""
    return round_half_up(time_s * sample_rate)


def samples_to_seconds(num_samples: int, sample_rate: int) -> Fraction:
    """Return the exact duration of a number of samples in seconds."""
    return Fraction(num_samples, sample_rate)


def frame_time_s(frame: int, fps: Fraction) -> Fraction:
    """Return the start time in seconds of a frame in a constant-rate video."""
    return frame / fps


def num_frames_for(duration_s: Fraction, fps: Fraction) -> int:
    """Return the number of frames that cover a duration in seconds: rounded up, at least one."""
    return max(1, math.ceil(duration_s * fps))


def mel_centre(frame: int, fps: Fraction, spec: AVSpec) -> int:
    """Return the index of the mel frame nearest to the middle of a video frame.

    Mel frame m is centred on sample m * hop_length.
    """
    return round_half_up((frame + Fraction(1, 2)) / fps * spec.mels_per_second)


def mel_window_start(frame: int, fps: Fraction, spec: AVSpec) -> int:
    """Return the index of the first mel frame of the window centred on a video frame.

    The index is negative if the window starts before the audio.

    Training and inference both use this function: with two placements that differ by a frame,
    audio and video are 40 ms apart (Wav2Lip issues 437, 680 and 312).
    """
    return mel_centre(frame, fps, spec) - spec.mel_window // 2
