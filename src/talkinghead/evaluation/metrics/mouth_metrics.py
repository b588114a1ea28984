"""What the mouth does, by landmarks: its opening, and how far the lips are from where they were.

Shape suffixes: T video frames, P landmarks.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from scipy import ndimage
from torch import Tensor

from talkinghead.features.audio_features import mel_windows
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.features.faces.mouth_motion import BoolArray, pearson
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
"""The lips' landmarks, outer and inner."""

_EYE_CORNERS = {"mesh468": (33, 263), "ibug68": (36, 45)}
_SPEECH_LEVEL = 0.4
_MIN_RANGE = 0.8  # 10 dB on the mel's scale.
_MIN_PAUSE = 5


def agreement(generated: FloatArray, real: FloatArray, mask: BoolArray | None = None) -> float:
    """Pearson's r of a generated and the real opening, as `pearson`; 0 where nothing is generated.

    A mouth that stays as it is follows nothing: were that unknown, a system that does not move in
    the hard clips would be judged by the easy ones.
    """
    r = pearson(generated, real, mask)
    if not np.isnan(r):
        return r
    known = np.isfinite(generated) & np.isfinite(real)
    if mask is not None:
        known &= mask
    return 0.0 if known.sum() >= 3 and np.ptp(real[known]) > np.ptp(generated[known]) else r


def openness(generated: FloatArray, real: FloatArray) -> float:
    """Where a mouth's median opening lies in the real clip's range.

    Args:
        generated: float [T], its opening, NaN where unknown.
        real: likewise, the real mouth's.

    Returns:
        0 at the real opening's 5th percentile, 1 at its 95th, and beyond them less or more; NaN
        where either opening is unknown throughout, or the real one does not vary.
    """
    generated, real = (series[np.isfinite(series)] for series in (generated, real))
    if not len(generated) or not len(real):
        return float("nan")
    low, high = np.percentile(real, [5, 95])
    return float((np.median(generated) - low) / (high - low)) if high > low else float("nan")


def speech_frames(mel: Tensor, num_frames: int, fps: Fraction, spec: AVSpec) -> BoolArray:
    """In which video frames somebody speaks: those well above the clip's quietest.

    The level of a frame is the mean over its mel window (so: of dB, over 200 ms). Speech is what
    exceeds the clip's 5th percentile by 40 % of the way to the 95th. In a clip that varies by less
    than 10 dB, all frames are speech unless it is silent throughout.

    Args:
        mel: float [num_mels, M], the clip's log-mel in [-4, 4].
        num_frames: T.
        fps: video frames per second.
        spec: the mel's.

    Returns:
        bool [T].
    """
    level = mel_windows(mel, range(num_frames), fps, spec).mean(dim=(1, 2)).numpy()
    low, high = np.percentile(level, [5, 95])
    if high - low < _MIN_RANGE:
        return np.full(num_frames, low > MEL_SILENCE + _MIN_RANGE)
    return np.asarray(level > low + _SPEECH_LEVEL * (high - low))


def pauses(speech: BoolArray) -> BoolArray:
    """The frames bool [T] of silence: those without speech for at least 200 ms on end at 25 Hz.

    Shorter gaps are part of speech: the mouth is on its way from one sound to the next.
    """
    closed: BoolArray = ndimage.binary_opening(~speech, np.ones(_MIN_PAUSE))
    return closed


def landmark_distance(predicted: FloatArray, target: FloatArray, topology: str) -> float:
    """LMD: mean distance of the lips' landmarks, in units of the target's outer eye distance.

    The two must lie in the same picture coordinates (here: the canonical face); nothing is aligned.

    Args:
        predicted: float [T, P, 2], NaN where unknown.
        target: the same.
        topology: "mesh468" or "ibug68".

    Returns:
        The mean over lips and known frames, in eye distances; NaN where no frame is known.
    """
    if predicted.shape[1] == 0 or target.shape[1] == 0:
        return float("nan")
    lips, (left, right) = list(MOUTH_POINTS[topology]), _EYE_CORNERS[topology]
    distance = np.linalg.norm(predicted[:, lips] - target[:, lips], axis=-1).mean(axis=1)
    ratio = distance / np.linalg.norm(target[:, left] - target[:, right], axis=-1)
    known = np.isfinite(ratio)
    return float(ratio[known].mean()) if known.any() else float("nan")
