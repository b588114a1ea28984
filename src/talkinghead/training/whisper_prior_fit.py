"""Fitting of the linear map from speech features to lip motion on one or several corpora.

Shape suffixes: N windows, S samples, F inputs of the map, T video frames, P = 40 coordinates of the
lip points.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.errors import CorpusError, UsageError
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.media.atomic_file import atomic_path
from talkinghead.predict.audio.lip_priors.band_energies import NUM_BAND_ENERGIES
from talkinghead.predict.audio.lip_priors.whisper_prior import (
    Encoder,
    WhisperLipPrior,
    map_inputs,
    recording_inputs,
)
from talkinghead.progress_bar import track_items
from talkinghead.sync.lip_offset import LipOffset, delay_motion, measure_lip_offset
from talkinghead.types import FloatArray

logger = logging.getLogger(__name__)

_SAMPLE_RATE, _FPS = WhisperLipPrior.sample_rate, WhisperLipPrior.fps
_PAST, _BLOCK, _AHEAD = (
    int(span_s * _SAMPLE_RATE)
    for span_s in (WhisperLipPrior.past_s, WhisperLipPrior.block_s, WhisperLipPrior.ahead_s)
)
_MAX_OFFSET = 8
_POOLED_FRAMES = 200
_SILENCE_WEIGHT = 0.02
_ROWS_AT_ONCE = 1500


_Key = tuple[int, str]
"""Number of a corpus, and the name of a speaker or source in it."""


@dataclass(frozen=True)
class PriorFitOptions:
    """Options of `fit_whisper_lip_prior`.

    Attributes:
        corpus_weights: weight of each corpus; empty for equal weights.
        ridge: strength of the ridge regression, relative to inputs of unit variance.
        band_ridge: the same for the band energies, which are few.
        gain: factor of the motion around the rest position: ridge regression underestimates it.
        lead_frames: frames by which the lips of the corpora after the first are left ahead of the
            motion predicted by a map of the first, as the lips anticipate the sounds in free
            speech; None for no alignment.
        temperature: weight of a speaker within a corpus, as a power of its number of frames.
    """

    corpus_weights: Sequence[float] = ()
    ridge: float = 2.0
    band_ridge: float = 0.2
    gain: float = 1.2
    lead_frames: float | None = 1.0
    temperature: float = 0.4


@dataclass(frozen=True)
class FitClip:
    """A clip of a corpus: inputs float16 [T, F] and lip motion float32 [T, P], NaN if unknown."""

    corpus: int
    speaker: str
    source: str
    inputs: FloatArray
    motion: FloatArray

    @property
    def speaker_key(self) -> _Key:
        """The corpus and the speaker: corpora may use the same name for different speakers."""
        return self.corpus, self.speaker

    @property
    def source_key(self) -> _Key:
        """The corpus and the source."""
        return self.corpus, self.source


def fit_whisper_lip_prior(
    corpora: Sequence[Path | str],
    whisper: Encoder,
    output: Path | str,
    options: PriorFitOptions | None = None,
) -> dict[_Key, LipOffset]:
    """Fit a linear map from speech features to lip motion on the training splits of corpora.

    Each speaker's inputs and motion are centred, and the motion is scaled to the same spread of the
    mouth opening, so that the map learns timing and shape and not the differences between people.
    Synthetic silence with the lips at rest is part of the data.

    Args:
        corpora: prepared corpora, 16 kHz and 25 frames/s; the first is in sync.
        whisper: the encoder whose features are mapped.
        output: the safetensors file to write: weight float16 [F, P] and bias float32 [P], in
            canonical pixels.
        options: see `PriorFitOptions`.

    Returns:
        The offsets of the sources of the corpora after the first, by the number of the corpus and
        the source.

    Raises:
        CorpusError: a corpus has no training clips, or another sample or frame rate.
        UsageError: the number of weights differs from that of the corpora.
    """
    options = options or PriorFitOptions()
    weights = tuple(options.corpus_weights) or (1.0,) * len(corpora)
    if len(weights) != len(corpora):
        raise UsageError(
            f"corpus_weights has {len(weights)} weights for {len(corpora)} corpora: give one "
            "weight for each corpus"
        )
    clips = [clip for n, path in enumerate(corpora) for clip in _read_corpus(n, path, whisper)]
    silence = map_inputs(whisper, _silent_windows()).flatten(0, 1)
    offsets: dict[_Key, LipOffset] = {}
    if len(corpora) > 1 and options.lead_frames is not None:
        first = [clip for clip in clips if clip.corpus == 0]
        offsets = _measure_offsets(clips, _fit(first, weights, silence, options))
        clips = _align(clips, offsets, options.lead_frames)
    weight, bias = _fit(clips, weights, silence, options)
    with atomic_path(Path(output)) as temporary:
        temporary.write_bytes(save({"weight": weight.half(), "bias": bias.float()}))
    return offsets


def _read_corpus(number: int, corpus_dir: Path | str, whisper: Encoder) -> Iterator[FitClip]:
    """Yield the training clips; the short clips of a speaker have the speaker as their source."""
    corpus_dir = Path(corpus_dir)
    manifest = Manifest.load(corpus_dir)
    clips = manifest.split("train")
    if not clips or (manifest.spec.sample_rate, manifest.spec.fps) != (_SAMPLE_RATE, _FPS):
        raise CorpusError(
            f"{corpus_dir} has {len(clips)} clips in split train, {manifest.spec.sample_rate} Hz, "
            f"{manifest.spec.fps} frames/s: prepare a corpus with clips in split train, at "
            f"{_SAMPLE_RATE} Hz and {_FPS} frames/s"
        )
    for clip in track_items(clips, f"reading {corpus_dir.name}"):
        file = ClipFile(corpus_dir / clip.path)
        motion = lip_motion(file.tensor("lips")).reshape(len(file), -1).astype(np.float32)
        source = clip.id if len(file) >= _POOLED_FRAMES else clip.speaker
        inputs = recording_inputs(whisper, file.audio(), len(file))
        yield FitClip(number, clip.speaker, source, inputs, motion)


def _silent_windows() -> FloatArray:
    """Return windows [N, S] of digital silence, and of noise from -90 to -50 dB."""
    rng = np.random.default_rng(0)
    levels = np.array([0.0, *(10 ** (np.arange(-90, -49, 10) / 20))])
    noise = rng.normal(size=(len(levels), _PAST + _BLOCK + _AHEAD))
    return (noise * levels[:, None]).astype(np.float32)


def _fit(
    clips: Sequence[FitClip],
    corpus_weights: Sequence[float],
    silence: Tensor,
    options: PriorFitOptions,
) -> tuple[Tensor, Tensor]:
    """Return weight [F, P] and bias [P] of the map."""
    speakers = _speakers(clips, corpus_weights, options.temperature)
    shares = torch.tensor([s.weight for s in speakers.values()])
    input_mean = shares @ torch.stack([s.input_mean for s in speakers.values()])
    motion_mean = shares @ torch.stack([s.motion_mean for s in speakers.values()])
    spread = math.exp(sum(s.weight * math.log(s.spread) for s in speakers.values()))
    # The lips are close to rest at the start of a clip.
    rest = shares @ torch.stack([s.rest for s in speakers.values()])
    covariance, rows = torch.zeros(()), list[Tensor]()
    for number, clip in enumerate(clips):
        speaker = speakers[clip.speaker_key]
        x, y = _known_rows(clip)
        y = (y - speaker.motion_mean) * (spread / speaker.spread)
        scale = math.sqrt(speaker.weight / speaker.num_frames)
        rows.append(torch.cat([x - speaker.input_mean, y], 1) * scale)
        if sum(map(len, rows)) >= _ROWS_AT_ONCE or number == len(clips) - 1:
            stacked, rows = torch.cat(rows), []
            covariance = covariance + (stacked.T @ stacked).double()
    at_rest = (rest - motion_mean).expand(len(silence), -1)
    quiet = torch.cat([silence - input_mean, at_rest], 1)
    quiet = quiet * math.sqrt(_SILENCE_WEIGHT / len(silence))
    num_inputs = silence.shape[1]
    ridge = torch.full((num_inputs,), options.ridge, dtype=torch.float64)
    ridge[num_inputs - NUM_BAND_ENERGIES :] = options.band_ridge
    weight = _solve(covariance, (quiet.T @ quiet).double(), ridge)
    bias = motion_mean - input_mean @ weight
    return options.gain * weight, rest + options.gain * (bias - rest)


def _solve(covariance: Tensor, quiet: Tensor, ridge: Tensor) -> Tensor:
    """Solve the ridge regression from covariances [F + P, F + P] of speech and silence."""
    size = len(ridge)
    scale = covariance.diagonal()[:size].sqrt() + 1e-3
    total = covariance + quiet
    inner = total[:size, :size] / scale / scale[:, None] + torch.diag(ridge)
    solution = torch.linalg.solve(inner, total[:size, size:] / scale[:, None]) / scale[:, None]
    return solution.float().contiguous()


@dataclass
class _Speaker:
    """Statistics of a speaker: means of inputs and motion, motion at rest, opening spread."""

    weight: float
    num_frames: int
    input_mean: Tensor
    motion_mean: Tensor
    rest: Tensor
    spread: float


def _speakers(
    clips: Sequence[FitClip], corpus_weights: Sequence[float], temperature: float
) -> dict[_Key, _Speaker]:
    """Return the statistics of each speaker of each corpus, with weights that sum to 1."""
    grouped = defaultdict(list)
    for clip in clips:
        grouped[clip.speaker_key].append(clip)
    speakers = {}
    for key, own in grouped.items():
        x, y = (torch.cat(parts) for parts in zip(*map(_known_rows, own), strict=True))
        heights = y.unflatten(-1, (20, 2))[..., 1]
        spread = float((heights[:, 17:20] - heights[:, 13:16]).mean(1).std())
        first = [torch.from_numpy(clip.motion[:3]).nanmean(0) for clip in own]
        rest = torch.stack(first).nanmean(0)
        rest = torch.where(rest.isfinite(), rest, y.mean(0))
        weight = len(y) ** temperature
        speakers[key] = _Speaker(weight, len(y), x.mean(0), y.mean(0), rest, max(spread, 1e-3))
    totals: defaultdict[int, float] = defaultdict(float)
    for (number, _), speaker in speakers.items():
        totals[number] += speaker.weight
    used = sum(corpus_weights[number] for number in totals)
    for (number, _), speaker in speakers.items():
        speaker.weight *= corpus_weights[number] / used / totals[number]
    return speakers


def _known_rows(clip: FitClip) -> tuple[Tensor, Tensor]:
    """Return the inputs and the motion of the frames with known lips, float32."""
    known = np.isfinite(clip.motion).all(1)
    return torch.from_numpy(clip.inputs[known]).float(), torch.from_numpy(clip.motion[known])


def _measure_offsets(
    clips: Sequence[FitClip], fitted: tuple[Tensor, Tensor]
) -> dict[_Key, LipOffset]:
    """Return the offset of each source of the corpora after the first."""
    weight, bias = fitted
    pairs = defaultdict(list)
    for clip in clips:
        if clip.corpus > 0:
            predicted = torch.from_numpy(clip.inputs).float() @ weight + bias
            pairs[clip.source_key].append((predicted.numpy(), clip.motion))
    offsets = {key: measure_lip_offset(own, _MAX_OFFSET) for key, own in pairs.items()}
    for (_, source), offset in offsets.items():
        logger.info(
            "%s: its audio is %+.1f frames (standard error %.1f) late, r %.2f",
            *(source, offset.frames, offset.standard_error, offset.correlation),
        )
    return offsets


def _align(
    clips: Sequence[FitClip], offsets: Mapping[_Key, LipOffset], lead_frames: float
) -> list[FitClip]:
    """Return the clips with motion shifted in time, so that each offset is `lead_frames`."""
    aligned = []
    for clip in clips:
        offset = offsets.get(clip.source_key)
        if clip.corpus > 0 and offset is not None and math.isfinite(offset.frames):
            moved = delay_motion(clip.motion, offset.frames - lead_frames)
            clip = replace(clip, motion=moved)
        aligned.append(clip)
    return aligned
