"""How far a clip's sound is from its picture, by a sync expert or by the lips' motion alone.

An offset counts frames of the AVSpec's grid and is positive where the sound comes late.

Shape suffixes: T video frames, N windows of S frames (one starts at every frame), D embedding
    width, C feature rows, M mel frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.alignment import as_tensor, mouth_crop
from talkinghead.features.faces.mouth_motion import pearson
from talkinghead.media.timing import (
    frame_time_s,
    num_frames_for,
    samples_to_seconds,
    seconds_to_samples,
)
from talkinghead.models.checkpoint import load_expert
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.types import AVSpec, FloatArray, UInt8Array

SEARCH_MARGIN = 5
"""So many frames beyond the largest offset that is allowed are searched, to see what exceeds it."""

_CHUNK_WINDOWS = 64
_LIP_MAX_SHIFT = 15
_LEVEL_WINDOW = 4  # Mel frames: 50 ms.


@dataclass(frozen=True)
class SyncRules:
    """How well a clip's sound and picture must go together.

    Attributes:
        checkpoint: the sync expert that measures it, "default" for the packaged one, or None:
            nothing is measured.
        max_offset_frames: with its sound further off a clip is "out of sync".
        min_confidence: with less a clip is "low confidence" (see `Offset`).
        correct: shift the sound by the offset that was found.
    """

    checkpoint: str | None = None
    max_offset_frames: int = 15
    min_confidence: float = 0.25
    correct: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.max_offset_frames, int) or self.max_offset_frames < 0:
            raise UsageError(
                f"sync.max_offset_frames is {self.max_offset_frames!r}; it must be a whole number "
                "of frames, at least 0"
            )
        if not 0.0 <= self.min_confidence <= 2.0:
            raise UsageError(
                f"sync.min_confidence is {self.min_confidence}; it must lie between 0 and 2"
            )


@dataclass(frozen=True)
class Offset:
    """What was found: `frames` by which the sound comes late, and how sure that is.

    `confidence` is LSE-C: the median over all shifts of the mean distance of sound and mouth, less
    the distance at the best shift; 0 where no shift is better than another, at most 2.
    """

    frames: int
    confidence: float


def load_offset_expert(path: str | Path, spec: AVSpec) -> SyncDiscriminator:
    """A sync expert that hears and sees what a corpus holds, frozen.

    Raises:
        CheckpointError: it is missing, broken, no sync expert, or was made for another AVSpec.
    """
    advice = "give one that `talkinghead train experiment=sync_expert` left, default, or null"
    try:
        loaded = load_expert(path)
    except CheckpointError as error:
        raise CheckpointError(f"no sync expert: {error}; {advice}") from error
    if difference := loaded.spec.difference(spec):
        raise CheckpointError(
            f"sync expert {path} was made for another AVSpec ({difference}, expert first); {advice}"
        )
    return cast(SyncDiscriminator, loaded.model)


@torch.inference_mode()
def embed_clip(
    expert: SyncDiscriminator,
    read_faces: Callable[[int, int], UInt8Array],
    num_frames: int,
    mean_mouth: UInt8Array,
    features_CM: Tensor,
    spec: AVSpec,
) -> tuple[FloatArray, FloatArray]:
    """A clip in an expert's space, one window starting at every frame.

    Args:
        expert: its windows have S frames.
        read_faces: from a first and a last frame to uint8 [count, face, face, 3] RGB, as
            `ClipFile.faces`; so a long clip is never decoded whole.
        num_frames: T, at least S.
        mean_mouth: uint8 [3, mouth, mouth], the mouth region of the clip's mean face.
        features_CM: the rows of `expert.audio_encoder.input_features`.
        spec: the clip's.

    Returns:
        Embeddings of the sound and of the mouth, unit vectors float32 [N, D] each, with N = T - S +
        1.
    """
    size = expert.num_frames
    num_windows = num_frames - size + 1
    mean = torch.from_numpy(mean_mouth).float()[None] / 255.0
    heard, seen = [], []
    for first in range(0, num_windows, _CHUNK_WINDOWS):
        count = min(_CHUNK_WINDOWS, num_windows - first)
        frames = range(first, first + count + size - 1)
        mouths = mouth_crop(as_tensor(read_faces(frames.start, frames.stop)), spec)
        names = expert.audio_encoder.input_features
        sound = mel_windows(features_CM, frames, spec.fps, spec, names)
        index = torch.arange(count)[:, None] + torch.arange(size)
        seen.append(expert.embed_video(mouths[index], mean.expand(count, -1, -1, -1)))
        heard.append(expert.embed_audio(sound[index]))
    return torch.cat(heard).numpy(), torch.cat(seen).numpy()


def distances_by_shift(heard_ND: FloatArray, seen_ND: FloatArray, max_shift: int) -> FloatArray:
    """How far each mouth window is from the sound of each shift.

    Args:
        heard_ND: embeddings of the sound.
        seen_ND: embeddings of the mouth.
        max_shift: from minus to plus so many frames.

    Returns:
        float32 [N, 2 * max_shift + 1] in [0, 2], the sound `max_shift` frames early first; NaN
        where a shift leaves the clip: nothing is padded in.
    """
    num_windows = len(seen_ND)
    distances = np.full((num_windows, 2 * max_shift + 1), np.nan, np.float32)
    for column, shift in enumerate(range(-max_shift, max_shift + 1)):
        rows = np.arange(max(0, -shift), min(num_windows, num_windows - shift))
        distances[rows, column] = np.linalg.norm(seen_ND[rows] - heard_ND[rows + shift], axis=1)
    return distances


def measure_offset(distances: FloatArray) -> Offset:
    """The shift with the least mean distance, of `distances_by_shift`'s or of some of its rows.

    Paper: Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016.
    """
    mean = np.nanmean(distances, axis=0)
    best = int(mean.argmin())
    return Offset(best - distances.shape[1] // 2, float(np.median(mean) - mean[best]))


def find_offset(heard_ND: FloatArray, seen_ND: FloatArray, max_offset: int) -> Offset:
    """The offset of a whole clip, searched a little beyond what is allowed.

    Every shift keeps at least half of the windows, or its mean would be of too few.
    """
    max_shift = min(max_offset + SEARCH_MARGIN, len(seen_ND) // 2)
    return measure_offset(distances_by_shift(heard_ND, seen_ND, max_shift))


def shift_audio(
    samples: FloatArray, num_frames: int, offset: int, spec: AVSpec
) -> tuple[slice, FloatArray]:
    """Brings a sound that is `offset` frames late (or early, below 0) to its picture.

    Frames that are left without a sound at either end go, rather than moving in silence.

    Args:
        samples: float32 [num_samples] at the spec's rate.
        num_frames: of the picture.
        offset: in whole frames.
        spec: the clip's.

    Returns:
        The frames to keep, and the samples from the first of them on.
    """
    first = max(0, -offset)
    late_s = frame_time_s(max(0, offset), spec.fps)
    samples = samples[seconds_to_samples(late_s, spec.sample_rate) :]
    heard = num_frames_for(samples_to_seconds(len(samples), spec.sample_rate), spec.fps)
    return slice(first, max(first, min(num_frames, first + heard))), samples


def lip_offset(opening: FloatArray, mel: FloatArray, spec: AVSpec) -> int | None:
    """The shift at which the sound's level rises and falls with the mouth's opening.

    It needs no expert, and so can tell why one does not learn; of a single clip it is a rough
    measure, of many their median is a good one.

    Args:
        opening: float [T], NaN where the face was lost.
        mel: float [num_mels, M].
        spec: the clip's.

    Returns:
        Frames, or None where the mouth or the sound does not change, or the clip is too short.
    """
    known = np.flatnonzero(np.isfinite(opening))
    max_shift = min(_LIP_MAX_SHIFT, len(opening) // 2)
    if len(known) < 2 or max_shift < 1:
        return None
    windows = mel_windows(torch.from_numpy(mel), range(len(opening)), spec.fps, spec)
    middle = (spec.mel_window - _LEVEL_WINDOW) // 2
    level = windows[..., middle : middle + _LEVEL_WINDOW].mean(dim=(1, 2)).numpy()
    mouth = np.gradient(
        np.interp(np.arange(len(opening)), known, opening[known]).astype(np.float32)
    )
    voice = np.gradient(level).astype(np.float32)
    correlation = [_correlate(mouth, voice, shift) for shift in range(-max_shift, max_shift + 1)]
    return int(np.argmax(correlation)) - max_shift if any(correlation) else None


def _correlate(mouth: FloatArray, voice: FloatArray, shift: int) -> float:
    """Pearson's r of the mouth at t and the voice at t + shift; 0 where either is constant."""
    x = mouth[max(0, -shift) : len(mouth) - max(0, shift)]
    y = voice[max(0, shift) : len(voice) - max(0, -shift)]
    return float(np.nan_to_num(pearson(x, y)))
