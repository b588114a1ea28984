"""Calibration of the lip motion on recorded speech of the speaker: style and lip motion map.

Shape suffixes: T frames, F inputs of the lip motion map, P = 40 coordinates of the lip points.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from talkinghead.errors import MediaError
from talkinghead.features.faces.alignment import lip_motion, transform_points
from talkinghead.features.faces.mouth_motion import pearson
from talkinghead.media.audio_decoding import stream_audio
from talkinghead.media.reader import probe
from talkinghead.media.timing import num_frames_for
from talkinghead.predict.audio.speaker_style import SpeakerStyle
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.progress_bar import progress_bar
from talkinghead.sync.lip_offset import LipOffset, LipOffsetRules, measure_lip_offset
from talkinghead.types import AVSpec, FloatArray

logger = logging.getLogger(__name__)

BoolArray = npt.NDArray[np.bool_]

MIN_SPEECH_S = 2.0
"""Shortest speech from which a style is estimated, in seconds."""
MIN_MAP_SPEECH_S = 6.0
"""Shortest speech with which the lip motion map is adapted, in seconds."""

_MAX_OFFSET = 8
# With the audio of another person, 4 % of clips of 4 s and none of 78 clips of 8 and 16 s pass
# these rules; with their own audio, 97 to 100 % pass (docs/benchmarks.md).
_RULES = LipOffsetRules(min_correlation=0.35)
_PIECE_FRAMES = 50
# Minimum levels of frames with speech, relative to the loud frames (95th percentile) and to full
# scale.
_SPEECH_DB, _FLOOR_DB = -30.0, -55.0
_RIDGES = (0.3, 1.0, 3.0, 10.0)
_NUM_FOLDS = 4
_MIN_GAIN_R = 0.03
# Larger motion distorts the rendered teeth (docs/benchmarks.md).
_MIN_FACTOR, _MAX_OPENING, _MAX_WIDTH = 0.33, 1.6, 1.5
_MAX_UPPER_LIP = 0.25
# Duration of speech with which half of the estimated deviation from the neutral style is applied:
# the spread of a person varies between parts of a few seconds.
_HALF_STYLE_S = 3.0


@dataclass(frozen=True)
class SpokenClip:
    """The speech of a video, and the detected lips of the person who speaks.

    Attributes:
        name: name of the video in messages.
        samples: float32 [num_samples] in [-1, 1].
        lips: lip landmarks of the frames in canonical pixels, float32 [T, 20, 2], NaN if unknown.
        reference: a reference of the face.
        spec: the AVSpec of the sample rate and the frame rate.
    """

    name: str
    samples: FloatArray
    lips: FloatArray
    reference: Reference
    spec: AVSpec

    @property
    def times_s(self) -> list[Fraction]:
        """Times of the middles of the frames."""
        return [(frame + Fraction(1, 2)) / self.spec.fps for frame in range(len(self.lips))]

    @property
    def has_speech(self) -> BoolArray:
        """Whether each frame contains speech, bool [T]."""
        size = int(self.spec.sample_rate / self.spec.fps)
        padded = np.pad(self.samples, (0, max(0, size * len(self.lips) - len(self.samples))))
        power = np.square(padded[: size * len(self.lips)]).reshape(-1, size).mean(1)
        level_db = 10 * np.log10(power + 1e-12)
        return level_db > max(np.percentile(level_db, 95) + _SPEECH_DB, _FLOOR_DB)

    @property
    def speech_s(self) -> float:
        """Duration of the speech with known lips in seconds."""
        spoken = self.has_speech & np.isfinite(self.lips).all((1, 2))
        return float(spoken.sum()) / float(self.spec.fps)


def read_spoken_clip(
    path: str | Path, frames: Iterable[SourceFrame], spec: AVSpec, max_s: float
) -> SpokenClip:
    """Read the audio of a video, and take the lips from its source frames.

    Args:
        path: the video.
        frames: frames of one face, from the start of the video; frames of its repetition are
            ignored.
        spec: AVSpec of the clip.
        max_s: maximum duration in seconds.

    Raises:
        MediaError: The video has no audio, or the face is visible for too short a time.
    """
    video = probe(path)
    if not video.has_audio:
        raise MediaError(f"{path} has no audio; expected a video in which the face speaks")
    times_s, lips, reference = list[float](), list[FloatArray](), None
    used_s = min(float(video.duration_s), max_s)
    with progress_bar(f"reading {Path(path).name}", logger) as show:
        for frame in frames:
            if frame.is_extension or frame.file_time_s >= max_s:
                break
            show(float(frame.file_time_s), used_s)
            if frame.lips is not None and frame.transform is not None and frame.strength > 0:
                times_s.append(float(frame.file_time_s + frame.duration_s / 2))
                lips.append(transform_points(frame.lips, frame.transform))
                reference = reference or frame.reference
    samples = _read_samples(path, spec.sample_rate, max_s)
    duration_s = Fraction(len(samples), spec.sample_rate)
    num_frames = num_frames_for(duration_s, spec.fps)
    if reference is None or len(lips) < MIN_SPEECH_S * spec.fps / 2 or num_frames == 0:
        raise MediaError(
            f"{path}: the face is visible in {len(lips)} frames and the audio lasts "
            f"{float(duration_s):.1f} s; calibration needs at least {MIN_SPEECH_S:g} s of speech"
        )
    on_grid = interpolate_lips(np.array(times_s), np.stack(lips), num_frames, float(spec.fps))
    return SpokenClip(str(path), samples, on_grid, reference, spec)


def _read_samples(path: str | Path, sample_rate: int, max_s: float) -> FloatArray:
    chunks, size = [np.zeros(0, np.float32)], int(max_s * sample_rate)
    for chunk in stream_audio(path, sample_rate):
        chunks.append(chunk)
        if sum(map(len, chunks)) >= size:
            break
    return np.concatenate(chunks)[:size]


def interpolate_lips(
    times_s: FloatArray, lips: FloatArray, num_frames: int, fps: float
) -> FloatArray:
    """Return lips [N, 20, 2] at the middles of `num_frames` grid frames, NaN in gaps."""
    grid_s = (np.arange(num_frames) + 0.5) / fps
    flat = lips.reshape(len(lips), -1)
    columns = [np.interp(grid_s, times_s, column) for column in flat.T]
    after = np.searchsorted(times_s, grid_s).clip(1, len(times_s) - 1)
    nearest_s = np.minimum(abs(times_s[after] - grid_s), abs(times_s[after - 1] - grid_s))
    on_grid = np.stack(columns, 1).astype(np.float32).reshape(-1, 20, 2)
    on_grid[nearest_s > 1.5 / fps] = np.nan
    return on_grid


@dataclass(frozen=True)
class AlignedClip:
    """Detected lip motion of a clip, shifted in time so that it agrees with the audio.

    Attributes:
        motion: float32 [T, 20, 2], NaN if unknown.
        has_speech: bool [T], the frames with speech and known lips.
        offset: measured offset of the clip.
        fps: frame rate.
    """

    motion: FloatArray
    has_speech: BoolArray
    offset: LipOffset
    fps: float

    @property
    def speech_s(self) -> float:
        """Duration of the speech with known lips in seconds."""
        return float(self.has_speech.sum()) / self.fps

    @property
    def is_known(self) -> BoolArray:
        """Whether the lips of each frame are known, bool [T]."""
        return np.asarray(np.isfinite(self.motion).all((1, 2)))

    def only(self, frames: BoolArray) -> AlignedClip:
        """Return the clip with the lip motion of frames outside a mask [T] set to NaN."""
        motion = np.where(frames[:, None, None], self.motion, np.float32(np.nan))
        return replace(self, motion=motion, has_speech=self.has_speech & frames)


def align_clip(clip: SpokenClip, predicted: FloatArray) -> AlignedClip:
    """Measure the audio-video offset of a clip with the predicted lip motion [T, 20, 2].

    Raises:
        MediaError: There is too little speech, or the lips do not follow the audio.
    """
    if clip.speech_s < MIN_SPEECH_S:
        raise MediaError(
            f"{clip.name}: {clip.speech_s:.1f} s of speech with a visible face; calibration needs "
            f"at least {MIN_SPEECH_S:g} s"
        )
    detected = lip_motion(clip.lips)
    num_pieces = max(2, len(detected) // _PIECE_FRAMES)
    pieces = (np.array_split(motion, num_pieces) for motion in (predicted, detected))
    offset = measure_lip_offset(zip(*pieces, strict=True), _MAX_OFFSET)
    if not offset.is_reliable(_RULES):
        raise MediaError(
            f"{clip.name}: the lips do not follow the audio (correlation {offset.correlation:.2f}, "
            f"expected {_RULES.min_correlation} or more): it may be music, noise, several voices "
            "or the voice of a person who is not visible"
        )
    # Whole frames, as an interpolation between frames would reduce the spread.
    motion = _delay(detected, round(offset.frames))
    known = np.isfinite(motion).all((1, 2))
    return AlignedClip(motion, clip.has_speech & known, offset, float(clip.spec.fps))


def _delay(motion: FloatArray, num_frames: int) -> FloatArray:
    """Return motion [T, 20, 2] delayed by a number of frames; NaN where unknown."""
    source = np.arange(len(motion)) - num_frames
    known = (source >= 0) & (source < len(motion))
    delayed = np.full_like(motion, np.nan)
    delayed[known] = motion[source[known]]
    return delayed


def estimate_style(clip: AlignedClip, predicted: FloatArray) -> SpeakerStyle:
    """Return the style with which predicted lip motion [T, 20, 2] has the detected spread.

    With little speech the style is closer to neutral. The rest shape is not estimated, because the
    references show it. Both motions are smoothed, as the noise of the detection would increase the
    spread.
    """
    real, ours = (_smooth(motion)[clip.has_speech] for motion in (clip.motion, predicted))
    return style_between(real, ours, clip.speech_s)


def style_between(
    real_motion: FloatArray, predicted_motion: FloatArray, speech_s: float
) -> SpeakerStyle:
    """Return the style with which the predicted motion has the spread of the real motion.

    Args:
        real_motion: detected lip motion in frames with speech, [T, 20, 2].
        predicted_motion: predicted lip motion in frames with speech, which may be other speech,
            [N, 20, 2].
        speech_s: duration of the detected speech; with little the style is closer to neutral.
    """
    real, ours = _Components(real_motion), _Components(predicted_motion)
    certainty = speech_s / (speech_s + _HALF_STYLE_S)
    opening, width = (
        min(largest, max(_MIN_FACTOR, float(a.std() / max(float(b.std()), 1e-6)) ** certainty))
        for a, b, largest in (
            (real.opening, ours.opening, _MAX_OPENING),
            (real.width, ours.width, _MAX_WIDTH),
        )
    )
    difference = certainty * (real.upper_lip_fraction - ours.upper_lip_fraction)
    upper_lip = float(np.clip(difference, -_MAX_UPPER_LIP, _MAX_UPPER_LIP))
    return SpeakerStyle(opening, width, upper_lip)


def _smooth(motion: FloatArray) -> FloatArray:
    """Average each frame with its neighbours; frames next to unknown ones are not changed."""
    smoothed = motion.copy()
    smoothed[1:-1] = (motion[:-2] + 2 * motion[1:-1] + motion[2:]) / 4
    return np.where(np.isfinite(smoothed), smoothed, motion)


class _Components:
    """Components of lip motion [T, 20, 2] as series [T]."""

    def __init__(self, motion: FloatArray) -> None:
        self.upper = -motion[:, 13:16, 1].mean(1)
        self.opening = self.upper + motion[:, 17:20, 1].mean(1)
        self.width = motion[:, 6, 0] - motion[:, 0, 0]

    @property
    def upper_lip_fraction(self) -> float:
        """Slope of the motion of the upper lip over the opening."""
        opening = self.opening - self.opening.mean()
        return float(opening @ (self.upper - self.upper.mean()) / max(opening @ opening, 1e-6))


def opening_of(motion: FloatArray) -> FloatArray:
    """Return the mouth opening [T] of lip motion [T, 20, 2] in pixels, relative to rest."""
    return _Components(motion).opening


@dataclass(frozen=True)
class AdaptedMap:
    """Change of the lip motion map.

    Attributes:
        weight: change of the weight, [F, P].
        bias: change of the bias, [P].
        ridge: selected strength of the regularisation towards no change.
        gain_r: rise of the correlation of the opening in cross-validation.
    """

    weight: Tensor
    bias: Tensor
    ridge: float
    gain_r: float


def adapt_map(clip: AlignedClip, inputs_TF: FloatArray, predicted: FloatArray) -> AdaptedMap | None:
    """Fit the change of the lip motion map to a clip by ridge regression towards no change.

    The change keeps the spread of the predicted motion, which the style scales. The strength of the
    regularisation is selected by cross-validation over consecutive parts of the clip.

    Args:
        clip: the detected motion.
        inputs_TF: inputs of the map, float [T, F].
        predicted: motion that the map predicts, [T, 20, 2].

    Returns:
        The change, or None if there is too little speech or cross-validation shows no gain.
    """
    if clip.speech_s < MIN_MAP_SPEECH_S:
        return None
    used = clip.is_known  # With pauses, in which the lips rest.
    x = np.asarray(inputs_TF[used], np.float32)
    real, ours = (m[used].reshape(len(x), -1) for m in (clip.motion, predicted))
    folds = np.arange(len(x)) * _NUM_FOLDS // len(x)
    base_r = np.mean([_opening_r(ours[folds == k], real[folds == k]) for k in range(_NUM_FOLDS)])
    gains = []
    for ridge in _RIDGES:
        fold_r = []
        for fold in range(_NUM_FOLDS):
            held = folds == fold
            weight, bias = _fit_change(x[~held], real[~held], ours[~held], ridge)
            fold_r.append(_opening_r(ours[held] + x[held] @ weight + bias, real[held]))
        gains.append(float(np.mean(fold_r) - base_r))
    best = int(np.argmax(gains))
    if gains[best] < _MIN_GAIN_R:
        return None
    weight, bias = _fit_change(x, real, ours, _RIDGES[best])
    return AdaptedMap(torch.from_numpy(weight), torch.from_numpy(bias), _RIDGES[best], gains[best])


def _fit_change(
    x_TF: FloatArray, real_TP: FloatArray, ours_TP: FloatArray, ridge: float
) -> tuple[FloatArray, FloatArray]:
    """Solve the ridge regression of the remaining motion in its dual form, since F > T."""
    scale = np.std(_opening(ours_TP)) / max(float(np.std(_opening(real_TP))), 1e-6)
    rest_TP = (real_TP - real_TP.mean(0)) * scale - (ours_TP - ours_TP.mean(0))
    mean, spread = x_TF.mean(0), x_TF.std(0)
    spread = spread + 1e-3 * spread.mean() + 1e-6
    z_TF = torch.from_numpy((x_TF - mean) / spread)
    kernel = z_TF @ z_TF.T
    size = float(kernel.diagonal().mean())
    kernel = kernel + ridge * size * torch.eye(len(kernel))
    dual = torch.linalg.solve(kernel, torch.from_numpy(rest_TP))
    weight = (z_TF.T @ dual).numpy() / spread[:, None]
    return weight, -mean @ weight


def _opening(motion_TP: FloatArray) -> FloatArray:
    return opening_of(motion_TP.reshape(-1, 20, 2))


def _opening_r(predicted_TP: FloatArray, real_TP: FloatArray) -> float:
    return float(np.nan_to_num(pearson(_opening(predicted_TP), _opening(real_TP))))


def clip_scores(clip: AlignedClip, predicted: FloatArray) -> dict[str, float]:
    """Compare predicted with detected lip motion [T, 20, 2].

    Returns:
        r: correlation of the mouth opening.
        spread: spread of the predicted opening relative to that of the detected.
        shape_error_px: root mean square distance of the lip points, after the means are
            subtracted.
    """
    real, ours = clip.motion[clip.is_known], predicted[clip.is_known]
    difference = (ours - ours.mean(0)) - (real - real.mean(0))
    return {
        "r": float(pearson(opening_of(ours), opening_of(real))),
        "spread": float(opening_of(ours).std() / max(float(opening_of(real).std()), 1e-6)),
        "shape_error_px": float(np.sqrt(np.square(difference).sum(-1).mean())),
    }
