"""Fitting of the linear map from the features of a Whisper encoder to lip motion.

Shape suffixes: N windows, S samples, F features, T video frames.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save
from torch import Tensor

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.data.window_sampling import clip_probabilities
from talkinghead.errors import CorpusError
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.media.atomic_file import atomic_path
from talkinghead.predict.audio.whisper_prior import Encoder, WhisperLipPrior, frames_around
from talkinghead.types import FloatArray

_SAMPLE_RATE, _FPS = WhisperLipPrior.sample_rate, WhisperLipPrior.fps
_PAST, _BLOCK, _AHEAD = (
    int(span_s * _SAMPLE_RATE)
    for span_s in (WhisperLipPrior.past_s, WhisperLipPrior.block_s, WhisperLipPrior.ahead_s)
)
_RIDGE = 1.0
# Factor that compensates for ridge regression, which underestimates the lip motion; measured on
# left-out speakers.
_GAIN = 1.3
_SILENCE_WEIGHT = 0.02
_ROWS_AT_ONCE = 1500


def fit_whisper_lip_prior(corpus_dir: Path | str, whisper: Encoder, output: Path | str) -> None:
    """Fit the map by ridge regression on the split "train" of a corpus.

    The clips of speakers with many clips get lower weights. Synthetic silence with the lips at rest
    is added to the data.

    Args:
        corpus_dir: A prepared corpus with 16 kHz and 25 frames/s.
        whisper: Encoder that computes the features.
        output: The safetensors file to write, with the tensors weight float16 [F, 40] and bias
            float32 [40], in canonical pixels.

    Raises:
        CorpusError: The corpus has no training clips, or another sample or frame rate.
    """
    corpus_dir = Path(corpus_dir)
    manifest = Manifest.load(corpus_dir)
    clips = manifest.split("train")
    if not clips or (manifest.spec.sample_rate, manifest.spec.fps) != (_SAMPLE_RATE, _FPS):
        raise CorpusError(
            f"{corpus_dir} has {len(clips)} clips in split train, {manifest.spec.sample_rate} Hz, "
            f"{manifest.spec.fps} frames/s: prepare it with some, at {_SAMPLE_RATE} Hz and {_FPS}"
        )
    weights = clip_probabilities([clip.speaker for clip in clips])
    moments, rows, first_lips = torch.zeros(()), [], []
    for clip, weight in track(zip(clips, weights, strict=True), "fitting the map", len(clips)):
        file = ClipFile(corpus_dir / clip.path)
        motion = torch.from_numpy(lip_motion(file.tensor("lips"))).flatten(1)
        first_lips.append(weight * motion[:3].nanmean(0))
        rows.append(_weighted_rows(_clip_features(whisper, file), motion, weight))
        if sum(map(len, rows)) >= _ROWS_AT_ONCE or clip is clips[-1]:
            stacked, rows = torch.cat(rows), []
            moments = moments + (stacked.T @ stacked).double()
    rest = torch.stack(first_lips).nansum(0)
    features = frames_around(whisper.encode(_silent_windows())).flatten(0, 1)
    silence = _weighted_rows(features, rest.expand(len(features), -1), _SILENCE_WEIGHT)
    matrix, bias = _solve(moments + (silence.T @ silence).double(), rest)
    with atomic_path(Path(output)) as temporary:
        temporary.write_bytes(save({"weight": matrix.half(), "bias": bias.float()}))


def _clip_features(whisper: Encoder, file: ClipFile) -> Tensor:
    """Return the features of each frame of a clip, [T, F]."""
    num_blocks = math.ceil(len(file) / (WhisperLipPrior.block_s * _FPS))
    samples = np.zeros(_PAST + num_blocks * _BLOCK + _AHEAD, np.float32)
    audio = (file.tensor("audio") / 32_767)[: len(samples) - _PAST]
    samples[_PAST : _PAST + len(audio)] = audio
    windows = np.lib.stride_tricks.sliding_window_view(samples, _PAST + _BLOCK + _AHEAD)[::_BLOCK]
    return frames_around(whisper.encode(windows)).flatten(0, 1)[: len(file)]


def _weighted_rows(features: Tensor, motion: Tensor, weight: float) -> Tensor:
    """Return rows (features, motion, 1) of frames with known lips, scaled to a total weight."""
    known = torch.isfinite(motion).all(1)
    rows = torch.cat([features, motion, features.new_ones(len(features), 1)], 1)[known]
    return rows * math.sqrt(weight / max(1, len(rows)))


def _silent_windows() -> FloatArray:
    """Return windows [N, S] of digital silence, and of noise from -90 to -50 dB."""
    rng = np.random.default_rng(0)
    levels = np.array([0.0, *(10 ** (np.arange(-90, -49, 10) / 20))])
    noise = rng.normal(size=(len(levels), _PAST + _BLOCK + _AHEAD))
    return (noise * levels[:, None]).astype(np.float32)


def _solve(moments: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the map for weighted second moments of (features, motion, 1)."""
    moments = moments / moments[-1, -1]
    mean = moments[-1, :-1]
    covariance = moments[:-1, :-1] - mean[:, None] * mean
    size = len(covariance) - len(rest)
    scale = covariance.diagonal()[:size].sqrt() + 1e-3
    inner = covariance[:size, :size] / scale / scale[:, None]
    inner += _RIDGE * torch.eye(size, dtype=inner.dtype)
    weight = torch.linalg.solve(inner, covariance[:size, size:] / scale[:, None]) / scale[:, None]
    bias = mean[size:] - mean[:size] @ weight
    return _GAIN * weight.contiguous(), rest + _GAIN * (bias - rest)
