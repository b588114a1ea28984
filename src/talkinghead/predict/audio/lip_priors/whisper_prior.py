"""A lip prior with Whisper's encoder, which was trained on many more voices than the generator.

A linear map from encoder features and band energies to lip motion is fitted on one or several
corpora. The map is linear because maps that fit the corpus better are worse for unseen speakers
(docs/research-log.md).

Paper: Radford et al., 2022, arXiv:2212.04356.

Shape suffixes: N windows, S samples, D encoder features, F inputs of the map, T video frames.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from talkinghead.concurrency import lower_thread_priority
from talkinghead.errors import CheckpointError
from talkinghead.paths import file_problem
from talkinghead.predict.audio.lip_priors.band_energies import NUM_BAND_ENERGIES, band_energies
from talkinghead.predict.audio.lip_priors.mapped_prior import MappedLipPrior, inputs_of_recording
from talkinghead.runtime.whisper_encoder import ENCODED_HZ, WhisperEncoder
from talkinghead.types import FloatArray
from talkinghead.value_rules import UnitFloat

PACKAGED = Path(str(resources.files("talkinghead") / "weights" / "whisper_lips.safetensors"))
# Offsets from a video frame to the encoder frames that the map uses: 200 ms on each side.
_CONTEXT_OFFSETS = tuple(range(-10, 11, 2))


class Encoder(Protocol):
    """A speech encoder: a `WhisperEncoder`, or an object with the same method."""

    def encode(self, clips: FloatArray) -> FloatArray:
        """Return the features of clips (see `WhisperEncoder.encode`)."""


class WhisperLipPrior(MappedLipPrior):
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

    past_s, block_s, ahead_s = Fraction(2), Fraction(2, 5), Fraction(1, 5)

    def __init__(
        self,
        whisper: Encoder | None = None,
        map_path: str | Path | None = None,
        blend_weight: UnitFloat = 0.75,
        speech_only: bool = True,
    ) -> None:
        path = map_path or PACKAGED
        advice = "give a file that scripts/fit_whisper_prior.py wrote, or leave it out"
        if problem := file_problem(path):
            raise CheckpointError(f"lip_prior.map_path={path} {problem}: {advice}")
        try:
            tensors = load_file(path)
            weight, bias = tensors["weight"], tensors["bias"]
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(
                f"lip_prior.map_path={path} cannot be read ({error}): {advice}"
            ) from error
        super().__init__(weight, bias, blend_weight, speech_only)
        self._whisper = whisper or _BackgroundEncoder()
        self._is_packaged = whisper is None

    @property
    def source(self) -> str | None:
        """The word "whisper"; None with another encoder."""
        return "whisper" if self._is_packaged else None

    def inputs(self, windows: FloatArray) -> Tensor:
        """Return the map's inputs for the blocks of windows (see `map_inputs`)."""
        return map_inputs(self._whisper, windows)

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
        return super().motion_of(inputs[..., :num_rows])


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


def map_inputs(whisper: Encoder, windows: FloatArray) -> Tensor:
    """Return the map's inputs for the video frames of the block of each window: [N, T, F].

    The first 11 * D inputs are features of the encoder, the others are band energies.

    Args:
        whisper: the speech encoder.
        windows: float32 [N, S] in [-1, 1]; see `LipPrior.predict_motion`.
    """
    prior = WhisperLipPrior
    num_frames = int(prior.block_s * prior.fps)
    middle = (np.arange(num_frames) * ENCODED_HZ) // int(prior.fps) + int(prior.past_s * ENCODED_HZ)
    index = middle[:, None] + np.array(_CONTEXT_OFFSETS)
    features = np.asarray(whisper.encode(windows)[:, index], np.float32)
    energies = band_energies(windows, prior.past_s, num_frames, prior.fps)
    return torch.cat([torch.from_numpy(features).flatten(2), torch.from_numpy(energies)], -1)


def recording_inputs(whisper: Encoder, samples: FloatArray, num_frames: int) -> FloatArray:
    """Return the map's inputs of each frame of a recording (see `inputs_of_recording`)."""
    inputs = partial(map_inputs, whisper)
    return inputs_of_recording(inputs, WhisperLipPrior, samples, num_frames)
