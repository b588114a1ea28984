"""Every conversion between seconds, audio samples, mel frames and video frames.

Time is rational. A float frame rate drifts: 29.97 rounded to 29 loses a second in 31 s.
"""

from __future__ import annotations

import math
from fractions import Fraction

from talkinghead.types import AVSpec


def round_half_up(value: Fraction | float) -> int:
    """Nearest integer, halves upwards (Python's `round` goes to even: jitter on regular grids)."""
    return math.floor(value + Fraction(1, 2))


def seconds_to_samples(time_s: Fraction, sample_rate: int) -> int:
    """The sample nearest to a time."""
    return round_half_up(time_s * sample_rate)


def samples_to_seconds(num_samples: int, sample_rate: int) -> Fraction:
    """Exact duration of so many samples."""
    return Fraction(num_samples, sample_rate)


def frame_time_s(frame: int, fps: Fraction) -> Fraction:
    """When frame number `frame` of a constant-rate video begins."""
    return frame / fps


def num_frames_for(duration_s: Fraction, fps: Fraction) -> int:
    """How many frames cover a duration, the last perhaps cut short; there is at least one."""
    return max(1, math.ceil(duration_s * fps))


def mel_centre(frame: int, fps: Fraction, spec: AVSpec) -> int:
    """The mel frame nearest to the middle of video frame `frame`.

    Mel frame `m` is centred on sample `m * hop_length`. The middle of the frame is what a viewer
    sees on average and what a camera's shutter integrates around.
    """
    return round_half_up((frame + Fraction(1, 2)) / fps * spec.mels_per_second)


def mel_window_start(frame: int, fps: Fraction, spec: AVSpec) -> int:
    """First mel frame of the window *centred* on video frame `frame`; negative: pad with silence.

    The one function that places a window, for training and inference alike: two placements, one
    frame apart, are the 40 ms skew that Wav2Lip's users found (its issues 437, 680 and 312).
    """
    return mel_centre(frame, fps, spec) - spec.mel_window // 2
