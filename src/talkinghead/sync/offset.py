"""Measurement of the audio-video offset of a clip, from sync embeddings or the mouth opening.

Offsets are in frames at the frame rate of the AVSpec, and positive if the audio is late.

Shape suffixes: T video frames, N windows, D embedding width, M mel frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.mouth_motion import pearson
from talkinghead.media.timing import (
    num_frames_for,
    samples_to_seconds,
    seconds_to_samples,
)
from talkinghead.types import AVSpec, FloatArray
from talkinghead.value_rules import NonNegativeInt, Range, check_fields

SEARCH_MARGIN = 5
"""Number of frames searched beyond the largest allowed offset, to detect larger offsets."""
_LIP_MAX_SHIFT = 15
_LEVEL_WINDOW = 4  # In mel frames: 50 ms.


@dataclass(frozen=True)
class SyncRules:
    """Required synchronisation of the audio and the video of a clip.

    Attributes:
        checkpoint: Checkpoint of the sync expert that measures the offset; "default" is the
            packaged sync expert, None disables the measurement.
        max_offset_frames: Offset in frames above which clips are skipped as "out of sync".
        min_confidence: Confidence (LSE-C, 0 to 2) below which clips are skipped as "low
            confidence".
        correct: Shift the audio to correct the measured offset.

    Raises:
        UsageError: A value is out of range.
    """

    checkpoint: str | Path | None = None
    max_offset_frames: NonNegativeInt = 15
    min_confidence: Annotated[float, Range(0, 2)] = 0.25
    correct: bool = True

    def __post_init__(self) -> None:
        check_fields(self, "sync.")


@dataclass(frozen=True)
class Offset:
    """Measured audio-video offset.

    Attributes:
        frames: Number of frames by which the audio is late.
        confidence: LSE-C: the median of the mean embedding distances at all shifts minus the
            smallest of them. It is between 0 (the distance is equal at all shifts) and 2. If a lip
            prior measured the offset, it is `LipOffset.correlation`.
    """

    frames: float
    confidence: float


def distances_by_shift(audio_ND: FloatArray, video_ND: FloatArray, max_shift: int) -> FloatArray:
    """Return the distance between the embeddings of each video window and of shifted audio.

    Returns:
        Distances, float32 [N, 2 * max_shift + 1] in [0, 2], for shifts from -`max_shift` (the audio
        is early) to `max_shift` (late); NaN where the shifted window is outside the clip.
    """
    num_windows = len(video_ND)
    distances = np.full((num_windows, 2 * max_shift + 1), np.nan, np.float32)
    for column, shift in enumerate(range(-max_shift, max_shift + 1)):
        rows = np.arange(max(0, -shift), min(num_windows, num_windows - shift))
        distances[rows, column] = np.linalg.norm(video_ND[rows] - audio_ND[rows + shift], axis=1)
    return distances


def measure_offset(distances: FloatArray) -> Offset:
    """Return the shift with the smallest mean distance in rows of `distances_by_shift`.

    Paper: Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016.
    """
    mean = np.nanmean(distances, axis=0)
    best = int(mean.argmin())
    return Offset(best - distances.shape[1] // 2, float(np.median(mean) - mean[best]))


def find_offset(audio_ND: FloatArray, video_ND: FloatArray, max_offset: int) -> Offset:
    """Measure the offset of a whole clip.

    The search extends a few frames beyond `max_offset`, but at most to half of the clip length, so
    that each mean distance is computed from at least half of the windows.
    """
    max_shift = min(max_offset + SEARCH_MARGIN, len(video_ND) // 2)
    return measure_offset(distances_by_shift(audio_ND, video_ND, max_shift))


def shift_audio(
    samples: FloatArray, num_frames: int, offset: float, spec: AVSpec
) -> tuple[slice, FloatArray]:
    """Align audio that is `offset` frames late (early if negative) with its video.

    Frames at either end that are left without audio are dropped, as their mouths would move in
    silence.

    Returns:
        The frames to keep, and the samples from the first of them on.
    """
    first = max(0, math.ceil(-offset))
    skipped_s = (first + Fraction(offset)) / spec.fps
    samples = samples[seconds_to_samples(skipped_s, spec.sample_rate) :]
    num_audible = num_frames_for(samples_to_seconds(len(samples), spec.sample_rate), spec.fps)
    return slice(first, max(first, min(num_frames, first + num_audible))), samples


def lip_offset(opening: FloatArray, mel: FloatArray, spec: AVSpec) -> int | None:
    """Estimate the offset from the correlation of the audio level with the mouth opening.

    No sync expert is needed, so the estimate helps to find out why a sync expert does not learn. It
    is inaccurate for a single clip; use the median of many clips.

    Args:
        opening: Mouth opening, float [T], NaN where no face was found.
        mel: Log-mel, float [num_mels, M].
        spec: AVSpec of the clip.

    Returns:
        The offset in frames; None if the opening or the audio level is constant, or if the clip is
        too short.
    """
    known = np.flatnonzero(np.isfinite(opening))
    max_shift = min(_LIP_MAX_SHIFT, len(opening) // 2)
    if len(known) < 2 or max_shift < 1:
        return None
    windows = mel_windows(torch.from_numpy(mel), range(len(opening)), spec.fps, spec)
    middle = (spec.mel_window - _LEVEL_WINDOW) // 2
    level = windows[..., middle : middle + _LEVEL_WINDOW].mean(dim=(1, 2)).numpy()
    opening = np.interp(np.arange(len(opening)), known, opening[known]).astype(np.float32)
    mouth, audio = np.gradient(opening), np.gradient(level).astype(np.float32)
    correlation = [_correlate(mouth, audio, shift) for shift in range(-max_shift, max_shift + 1)]
    return int(np.argmax(correlation)) - max_shift if any(correlation) else None


def _correlate(mouth: FloatArray, audio: FloatArray, shift: int) -> float:
    """Return Pearson's r of `mouth` and of `audio` shifted by `shift` frames; 0 if undefined."""
    x = mouth[max(0, -shift) : len(mouth) - max(0, shift)]
    y = audio[max(0, shift) : len(audio) - max(0, -shift)]
    return float(np.nan_to_num(pearson(x, y)))
