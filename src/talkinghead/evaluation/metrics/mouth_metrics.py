"""Mouth motion measured on landmarks: opening, width and lip shape, speech and pauses, distance.

Shape suffixes: T video frames, P landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from torch import Tensor

from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.alignment import LIP_POINTS, OUTER_EYES
from talkinghead.features.faces.mouth_motion import BoolArray, pearson
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.sync.lip_offset import measure_lip_offset
from talkinghead.types import AVSpec, FloatArray

# fmt: off
_OUTER_LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
)
_INNER_LIPS = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
)
# fmt: on
MOUTH_POINTS: dict[str, tuple[int, ...]] = {
    "mesh468": (*_OUTER_LIPS, *_INNER_LIPS),
    "ibug68": tuple(range(48, 68)),
}
"""Indices of the outer and inner lip landmarks, by topology."""

_MOUTH_CORNERS = (0, 6)
_SPEECH_LEVEL = 0.4
_MIN_RANGE = 0.8  # 10 dB in units of the log-mel.
_MIN_PAUSE = 5
_CLOSED, _ROUNDED = 0.15, 0.25


def opening_correlation(
    generated: FloatArray, real: FloatArray, mask: BoolArray | None = None
) -> float:
    """Return Pearson's r of the generated and the real mouth opening [T].

    If only the real mouth moves, 0 is returned instead of NaN, so that such a clip counts in the
    mean over clips.
    """
    r = pearson(generated, real, mask)
    if not np.isnan(r):
        return r
    known = np.isfinite(generated) & np.isfinite(real)
    if mask is not None:
        known &= mask
    return 0.0 if known.sum() >= 3 and np.ptp(real[known]) > np.ptp(generated[known]) else r


class InStepCorrelation(NamedTuple):
    """Correlation of two openings at the best shift.

    Attributes:
        r: the largest Pearson's r over the shifts.
        frames: the shift, positive if the generated mouth is later than the real one.
        standard_error: uncertainty of the shift in frames, from estimates that leave out one block
            of two seconds each (jackknife); NaN for clips of less than three seconds.
    """

    r: float
    frames: int
    standard_error: float


def correlation_in_step(
    generated: FloatArray, real: FloatArray, max_shift: int = 5
) -> InStepCorrelation:
    """Return the largest r of the openings [T] over shifts, and its shift in frames.

    A constant offset between the audio and the frames of the real video does not count against the
    generated video. Each shift must leave at least half of the frames.
    """
    size = min(len(generated), len(real))
    max_shift = min(max_shift, size // 2)
    best, shift = opening_correlation(generated[:size], real[:size]), 0
    for late in range(-max_shift, max_shift + 1):
        r = opening_correlation(*in_step(generated, real, late))
        if r > best:
            best, shift = r, late
    error = measure_lip_offset([(generated, real)], max_shift).standard_error
    return InStepCorrelation(best, shift, error if np.isfinite(error) else float("nan"))


def in_step(
    generated: FloatArray, real: FloatArray, num_frames: int
) -> tuple[FloatArray, FloatArray]:
    """Return the frames of two series [T, ...] that overlap at a shift of `num_frames`.

    The shift is positive if the generated series is later than the real one.
    """
    size = min(len(generated), len(real))
    early, ahead = max(0, num_frames), max(0, -num_frames)
    return generated[early : size - ahead], real[ahead : size - early]


def relative_opening(generated: FloatArray, real: FloatArray) -> float:
    """Return the median generated opening [T] relative to the range of the real opening [T].

    The value is 0 at the 5th percentile of the real opening and 1 at the 95th percentile, and is
    extrapolated outside this range. It is NaN if either opening is unknown in all frames, or if the
    real opening is constant.
    """
    generated, real = (series[np.isfinite(series)] for series in (generated, real))
    if not len(generated) or not len(real):
        return float("nan")
    low, high = np.percentile(real, [5, 95])
    return float((np.median(generated) - low) / (high - low)) if high > low else float("nan")


def closure_rate(
    opening: FloatArray, closures_s: Sequence[float], fps: Fraction, window_s: float = 0.04
) -> float:
    """Return the fraction of bilabial sounds (p, b, m) at which the mouth is closed.

    The mouth is closed if its opening, in a frame whose middle is within `window_s` of the sound,
    exceeds the clip's 5th percentile by less than 15 % of the distance to the 95th. The opening is
    float [T], NaN where unknown; `closures_s` are the times of the sounds.

    Returns:
        The fraction; NaN if no sound has a frame with a known opening, or if the opening is
        constant.
    """
    return _fraction_of_small_values(opening, closures_s, fps, window_s, _CLOSED)


def rounding_rate(
    width: FloatArray, sounds_s: Sequence[float], fps: Fraction, window_s: float = 0.04
) -> float:
    """Return the fraction of rounded sounds (w, u, o) at which the mouth is narrow.

    The mouth is narrow if its width, in a frame whose middle is within `window_s` of the sound,
    exceeds the clip's 5th percentile by less than 25 % of the distance to the 95th. See
    `closure_rate` for the arguments.
    """
    return _fraction_of_small_values(width, sounds_s, fps, window_s, _ROUNDED)


def _fraction_of_small_values(
    series: FloatArray, times_s: Sequence[float], fps: Fraction, window_s: float, limit: float
) -> float:
    """Return the fraction of times near which a series [T] is small in its own range."""
    known = np.isfinite(series)
    if not known.any():
        return float("nan")
    low, high = np.percentile(series[known], [5, 95])
    if high <= low:
        return float("nan")
    middles_s = (np.arange(len(series)) + 0.5) / float(fps)
    smallest = []
    for time_s in times_s:
        near = known & (np.abs(middles_s - time_s) <= window_s + 1e-6)
        if near.any():
            smallest.append(float(series[near].min()))
    below = np.array(smallest) < low + limit * (high - low)
    return float(np.mean(below)) if smallest else float("nan")


def speech_frames(mel: Tensor, num_frames: int, fps: Fraction, spec: AVSpec) -> BoolArray:
    """Return a mask of the video frames that contain speech, bool [T].

    The level of a frame is the mean of its mel window (200 ms). A frame contains speech if its
    level exceeds the clip's 5th percentile by more than 40 % of the distance to the 95th
    percentile. If this distance is less than 10 dB, all frames contain speech unless the clip is
    silent. `mel` is a log-mel float [num_mels, M] in [-4, 4].
    """
    level = mel_windows(mel, range(num_frames), fps, spec).mean(dim=(1, 2)).numpy()
    low, high = np.percentile(level, [5, 95])
    if high - low < _MIN_RANGE:
        return np.full(num_frames, low > MEL_SILENCE + _MIN_RANGE)
    return np.asarray(level > low + _SPEECH_LEVEL * (high - low))


def pause_frames(speech: BoolArray) -> BoolArray:
    """Return a mask of pauses, bool [T]: at least 5 consecutive frames without speech.

    In shorter gaps (less than 200 ms at 25 Hz) the mouth moves from one sound to the next.
    """
    closed: BoolArray = ndimage.binary_opening(~speech, np.ones(_MIN_PAUSE))
    return closed


def landmark_distance(predicted: FloatArray, target: FloatArray, topology: str) -> float:
    """Return LMD: the mean distance of the lip landmarks, in outer-eye distances of the target.

    The landmarks must be in the same coordinates (here: the canonical face); they are not aligned.
    Frames without known landmarks are left out; the result is NaN if no frame has landmarks. They
    are float [T, P, 2], NaN where unknown, in the order "mesh468" or "ibug68".
    """
    if predicted.shape[1] == 0 or target.shape[1] == 0:
        return float("nan")
    lips = list(MOUTH_POINTS[topology])
    distance = np.linalg.norm(predicted[:, lips] - target[:, lips], axis=-1).mean(axis=1)
    ratio = distance / _eye_distance(target, topology)
    known = np.isfinite(ratio)
    return float(ratio[known].mean()) if known.any() else float("nan")


def width_series(points: FloatArray, topology: str) -> FloatArray:
    """Return the mouth width float32 [T] in outer-eye distances; NaN where unknown.

    Landmarks are float [T, P, 2], NaN where unknown, in the order "mesh468" or "ibug68".
    """
    if points.shape[1] == 0:
        return np.full(len(points), np.nan, dtype=np.float32)
    left, right = (points[:, LIP_POINTS[topology][corner]] for corner in _MOUTH_CORNERS)
    width = np.linalg.norm(right - left, axis=-1) / _eye_distance(points, topology)
    return np.asarray(width, dtype=np.float32)


def lip_shape_motion(points: FloatArray, topology: str) -> FloatArray:
    """Return the displacement of the lips from the rest shape, float [T, 20, 2] in eye distances.

    The rest shape is the median over the clip. The landmarks must be in the coordinates of the
    canonical face, in which the head does not move. See `width_series` for the arguments.
    """
    if points.shape[1] == 0:
        return np.full((len(points), 20, 2), np.nan, dtype=np.float32)
    lips = points[:, list(LIP_POINTS[topology])]
    known = np.isfinite(lips).all(axis=(1, 2))
    if not known.any():
        return np.full_like(lips, np.nan)
    scale = np.median(_eye_distance(points[known], topology))
    return np.asarray((lips - np.median(lips[known], axis=0)) / scale)


def lip_shape_error(generated: FloatArray, real: FloatArray) -> float:
    """Return the mean distance of the displacements of the lip points, in eye distances.

    Differences between the rest shapes do not count. Frames without known lips are left out; the
    result is NaN if no frame is left. The arguments are results of `lip_shape_motion`, float [T,
    20, 2].
    """
    distance = np.linalg.norm(generated - real, axis=-1).mean(axis=1)
    known = np.isfinite(distance)
    return float(distance[known].mean()) if known.any() else float("nan")


def lip_shape_correlation(generated: FloatArray, real: FloatArray) -> float:
    """Return Pearson's r over all frames and coordinates of the displacements [T, 20, 2].

    Each coordinate is centred over time, so that large motions have large weights. A still mouth
    has r = 0; the result is NaN if the real mouth does not move or is unknown.
    """
    known = np.isfinite(generated).all(axis=(1, 2)) & np.isfinite(real).all(axis=(1, 2))
    if not known.any():
        return float("nan")
    ours, theirs = (
        (series[known] - series[known].mean(axis=0)).ravel() for series in (generated, real)
    )
    r = pearson(ours, theirs)
    return 0.0 if np.isnan(r) and known.sum() >= 3 and np.ptp(theirs) > np.ptp(ours) else r


def _eye_distance(points: FloatArray, topology: str) -> FloatArray:
    left, right = OUTER_EYES[topology]
    return np.asarray(np.linalg.norm(points[:, left] - points[:, right], axis=-1))
