"""Level-normalised band energies of speech windows, as additional inputs of a lip prior.

Shape suffixes: N windows, S samples, M mel frames, B bands, T video frames.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import torch

from talkinghead.features.audio_features import AudioFeatures
from talkinghead.types import AVSpec, FloatArray

_NUM_BANDS = 6
_LAGS = tuple(range(-4, 5))  # In video frames.
_SMOOTHED_MELS = 5
# Windows without speech are not amplified to the level of speech: -1 is about -62 dB.
_MIN_LEVEL = -1.0

NUM_BAND_ENERGIES = _NUM_BANDS * len(_LAGS)
"""Number of energies per video frame."""


def band_energies(
    windows_NS: FloatArray, past_s: Fraction, num_frames: int, fps: Fraction
) -> FloatArray:
    """Return the band energies of the video frames that follow `past_s` in each window.

    The energies are means of the default AVSpec's log-mel in six bands at nine lags of one video
    frame, relative to the 90th percentile of the window, so that they do not depend on the level of
    the recording.

    Args:
        windows_NS: float32 [N, S] in [-1, 1] at 16 kHz.
        past_s: time of the first video frame.
        num_frames: number of video frames T.
        fps: frame rate of the video.

    Returns:
        float32 [N, T, NUM_BAND_ENERGIES].
    """
    features = _features()
    mel = features(torch.from_numpy(np.array(windows_NS, np.float32))).numpy()
    edges = np.linspace(0, mel.shape[1], _NUM_BANDS + 1).astype(int)[:-1]
    counts = np.diff([*edges, mel.shape[1]])
    bands_NMB = (np.add.reduceat(mel, edges, axis=1) / counts[:, None]).swapaxes(1, 2)
    half = _SMOOTHED_MELS // 2
    padded = np.pad(bands_NMB, ((0, 0), (half, half), (0, 0)), mode="edge")
    bands_NMB = np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHED_MELS, 1).mean(-1)
    level = np.percentile(bands_NMB, 90, axis=1, keepdims=True)
    bands_NMB = bands_NMB - np.maximum(level, _MIN_LEVEL)
    middle_s = float(past_s) + (np.arange(num_frames) + 0.5) / float(fps)
    times_s = middle_s[:, None] + np.array(_LAGS) / float(fps)
    index = np.rint(times_s * float(features.spec.mels_per_second)).astype(int)
    index = index.clip(0, bands_NMB.shape[1] - 1)
    return np.asarray(bands_NMB[:, index], np.float32).reshape(len(mel), num_frames, -1)


@cache
def _features() -> AudioFeatures:
    return AudioFeatures(AVSpec())
