"""The scores: pure functions of pictures, landmarks, mels and embeddings. See docs/metrics.md.

Shape suffixes: T video frames, P landmarks, D embedding width, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from kornia.metrics import ssim as ssim_map
from torch import Tensor
from torch.nn import functional as F

from talkinghead.features.audio import SILENCE, mel_windows
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.geometry import mouth_opening
from talkinghead.types import AVSpec, Face, FloatArray, UInt8Array

BoolArray = npt.NDArray[np.bool_]

MOUTH_POINTS: dict[str, tuple[int, ...]] = {
    "mesh468": (
        *(
            61,
            146,
            91,
            181,
            84,
            17,
            314,
            405,
            321,
            375,
            291,
            185,
            40,
            39,
            37,
            0,
            267,
            269,
            270,
            409,
        ),
        *(
            78,
            95,
            88,
            178,
            87,
            14,
            317,
            402,
            318,
            324,
            308,
            191,
            80,
            81,
            82,
            13,
            312,
            311,
            310,
            415,
        ),
    ),
    "ibug68": tuple(range(48, 68)),
}
"""The lips' landmarks, outer and inner."""

_EYE_CORNERS = {"mesh468": (33, 263), "ibug68": (36, 45)}
_LUMA = (0.299, 0.587, 0.114)
_SPEECH_LEVEL = 0.4
_MIN_RANGE = 0.8  # 10 dB on the mel's scale.


def track_landmarks(images: UInt8Array, detector: FaceDetector) -> FloatArray:
    """Landmarks of the largest face through a clip.

    Args:
        images: uint8 [T, H, W, 3] RGB, of one shot.
        detector: finds and follows the face.

    Returns:
        float32 [T, P, 2] pixels, NaN in frames without a face; [T, 0, 2] where no frame shows one.
    """
    faces: list[Face | None] = []
    face: Face | None = None
    for image in images:
        face = detector.track(image, face) if face else None
        if face is None:
            face = next(iter(detector.detect(image)), None)
        faces.append(face)
    num_points = max((len(face.points) for face in faces if face), default=0)
    missing = np.full((num_points, 2), np.nan, dtype=np.float32)
    return np.stack([face.points if face else missing for face in faces])


def opening_series(points: FloatArray, topology: str) -> FloatArray:
    """Mouth opening in every frame: inner-lip gap over the distance between the outer eye corners.

    Args:
        points: float [T, P, 2], NaN where unknown.
        topology: "mesh468" or "ibug68".

    Returns:
        float32 [T], NaN where unknown.
    """
    if points.shape[1] == 0:
        return np.full(len(points), np.nan, dtype=np.float32)
    return np.array([mouth_opening(p, topology) for p in points], dtype=np.float32)


def pearson(a: FloatArray, b: FloatArray, mask: BoolArray | None = None) -> float:
    """Pearson's r of two series [T] over the frames where both are known and `mask` holds.

    NaN where fewer than three frames are left or a series does not vary.
    """
    known = np.isfinite(a) & np.isfinite(b)
    if mask is not None:
        known &= mask
    if known.sum() < 3:
        return float("nan")
    x, y = a[known].astype(np.float64), b[known].astype(np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 1e-12 else float("nan")


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
        return np.full(num_frames, low > SILENCE + _MIN_RANGE)
    return np.asarray(level > low + _SPEECH_LEVEL * (high - low))


def l1(predicted: Tensor, target: Tensor, weights: Tensor | None = None) -> float:
    """Mean absolute difference of images [..., 3, H, W] in [0, 1]; in [0, 1], lower is better.

    `weights` [H, W] say how much each place counts; all alike if not given.
    """
    difference = (predicted - target).abs()
    if weights is None:
        return float(difference.mean())
    return float((difference * weights).mean() / weights.mean())


def psnr(predicted: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, mean over images [T, 3, H, W] in [0, 1]; at most 100."""
    error = (predicted - target).square().flatten(1).mean(dim=1).clamp_min(1e-10)
    return float((-10 * torch.log10(error)).mean())


def ssim(predicted: Tensor, target: Tensor) -> float:
    """Structural similarity of images [T, 3, H, W] in [0, 1], at most 1.

    The window is a Gaussian of 11 x 11 pixels (sigma 1.5); the mean is over pixels and colours.

    Paper: Wang et al., "Image quality assessment: from error visibility to structural similarity",
        2004.
    """
    return float(ssim_map(predicted, target, window_size=11).mean())


def sharpness(images: Tensor) -> float:
    """Variance of the luma's Laplacian, averaged over images [T, 3, H, W] in [0, 1].

    In squared grey levels of 255: it grows with contrast, so compare it with the real mouth's.
    """
    luma = torch.tensor(_LUMA, dtype=images.dtype).view(1, 3, 1, 1) * 255
    grey = (images * luma).sum(dim=1, keepdim=True)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=images.dtype)[None, None]
    return float(F.conv2d(grey, kernel).flatten(1).var(dim=1).mean())


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


@dataclass(frozen=True)
class SyncScores:
    """How well sound and lips agree, in an expert's space.

    Attributes:
        lse_d: the least mean distance over all shifts; lower is better.
        lse_c: the median over shifts minus the least; higher is better.
        offset: the shift with the least distance, in frames: positive where the sound comes late.
        distance_at_zero: the mean distance without a shift, which forgives no offset.
    """

    lse_d: float
    lse_c: float
    offset: int
    distance_at_zero: float


def sync_scores(audio: FloatArray, video: FloatArray, max_shift: int = 15) -> SyncScores:
    """LSE-D, LSE-C and the offset from a sync expert's embeddings.

    Args:
        audio: float [T, D], the embedding of the sound around each frame.
        video: float [T, D], that of the mouth.
        max_shift: shifts from minus to plus so many frames are tried (fewer where T is small).

    Paper: Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016; Prajwal et al.,
        2020, arXiv:2008.10010, for the names. Each shift is averaged over the frames that it
        leaves; nothing is padded in.
    """
    num_frames = min(len(audio), len(video))
    max_shift = min(max_shift, num_frames - 1)
    shifts = np.arange(-max_shift, max_shift + 1)
    distances = np.array([_mean_distance(audio, video, int(shift)) for shift in shifts])
    best = int(distances.argmin())
    return SyncScores(
        float(distances[best]),
        float(np.median(distances) - distances[best]),
        int(shifts[best]),
        float(distances[max_shift]),
    )


def _mean_distance(audio: FloatArray, video: FloatArray, shift: int) -> float:
    """Between the mouth at frame t and the sound at t + shift, over the frames where both exist."""
    audio, video = audio[max(0, shift) :], video[max(0, -shift) :]
    common = min(len(audio), len(video))
    return float(np.linalg.norm(video[:common] - audio[:common], axis=1).mean())


@dataclass(frozen=True)
class Interval:
    """A mean over clips with its bootstrap interval; `num_clips` had a value."""

    mean: float
    low: float
    high: float
    num_clips: int


def bootstrap_interval(
    values: FloatArray, level: float = 0.95, num_samples: int = 2000, seed: int = 0
) -> Interval:
    """Mean of one value per clip, and the interval that resampling the clips gives (percentiles).

    Args:
        values: float [num_clips]; NaN means that the clip has none.
        level: the interval's coverage.
        num_samples: resamplings.
        seed: of the resampling.

    Returns:
        All NaN where no clip has a value.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(seed).integers(len(values), size=(num_samples, len(values)))
    means = values[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))
