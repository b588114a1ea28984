"""Scores of a prepared clip, generated with its own audio, other audio and silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkinghead.data.clip_file import ClipFeatureReader, ClipFile
from talkinghead.data.manifest import ClipEntry
from talkinghead.evaluation import metrics
from talkinghead.evaluation.clip_audio import ClipAudio
from talkinghead.evaluation.clip_generation import (
    ClipGenerator,
    EncodedClip,
    GeneratedClip,
    real_mouths,
)
from talkinghead.evaluation.report.clip_visuals import make_clip_visuals
from talkinghead.evaluation.report.results import ClipResult
from talkinghead.evaluation.scorers.clip_scorers import Scorers
from talkinghead.features.audio_features import input_features
from talkinghead.models.lipsync.mouth_painting import lip_mask_prior
from talkinghead.types import AVSpec, FloatArray, UInt8Array

_WRONG_AUDIO = {"other": "", "elsewhere": "_elsewhere"}
"""Versions generated with wrong audio, each with the suffix of the names of its ratios."""


@dataclass(frozen=True)
class RealClip:
    """A prepared clip in memory.

    Attributes:
        entry: the clip's entry in the manifest.
        faces: canonical faces, uint8 [T, H, W, 3].
        audio: starts with the first frame, and may be longer than the faces.
        opening: mouth opening, float32 [T].
        lips: lip landmarks, float32 [T, 20, 2], canonical pixels.
    """

    entry: ClipEntry
    faces: UInt8Array
    audio: ClipAudio
    opening: FloatArray
    lips: FloatArray


def load_clip(
    corpus_dir: Path,
    entry: ClipEntry,
    spec: AVSpec,
    audio_features: Sequence[str] = ("mel",),
    max_frames: int | None = None,
) -> RealClip:
    """Read the first `max_frames` frames of a clip (all if None), and all of its audio.

    Raises:
        CorpusError: the clip's file is missing or broken.
    """
    file = ClipFile(corpus_dir / entry.path)
    reader = ClipFeatureReader(spec, audio_features)
    num_frames = min(len(file), max_frames or len(file))
    return RealClip(
        entry,
        file.faces(0, num_frames),
        ClipAudio(file.audio(), reader.read(file), reader.names, spec),
        file.tensor("mouth_opening")[:num_frames].astype(np.float32),
        file.tensor("lips")[:num_frames].astype(np.float32),
    )


class ClipScorer:
    """A scorer that generates one clip at a time and compares it with the real clip.

    Attributes:
        audio_features: names of the audio features that the clips must have.
    """

    def __init__(self, generator: ClipGenerator, scorers: Scorers) -> None:
        self.generator = generator
        self.spec = generator.spec
        self.scorers = scorers
        needed = (*generator.model.input_features, *scorers.input_features)
        self.audio_features = input_features(needed)

    def score(self, clip: RealClip, other: RealClip | None, column: str = "clips") -> ClipResult:
        """Return all scores of a clip.

        Args:
            clip: the real clip.
            other: a clip whose audio does not match `clip`; None skips the scores with wrong audio.
            column: column of the report that the result belongs to.
        """
        detector, topology = self.scorers.detector, self.scorers.detector.topology
        points = {"real": metrics.track_landmarks(clip.faces, detector)}
        encoded = self.generator.encode(clip.faces, clip.lips, points["real"], topology)
        versions = {
            name: self.generator.generate(encoded, audio)
            for name, audio in _audio_versions(clip, other).items()
        }
        points |= {n: metrics.track_landmarks(v.faces, detector) for n, v in versions.items()}
        opening = {name: metrics.opening_series(p, topology) for name, p in points.items()}
        speech = self.scorers.speech(clip.audio, len(clip.faces))
        own = versions["own"]
        values = self.scorers.motion(opening["own"], clip.opening, speech)
        pair = points["own"], points["real"]
        values |= self.scorers.lip_shape(*pair, values["step_frames"])
        openings = opening["own"], clip.opening
        values |= self.scorers.sound_rates(clip.entry.id, *pair, openings)
        values |= _audio_dependence(clip, other, opening)
        values["lmd"] = metrics.landmark_distance(*pair, topology)
        values |= self._pixels(clip, encoded, versions, speech)
        values |= self.scorers.likeness(own.shown, clip.faces)
        values |= self.scorers.sync(own.faces, own.mouths, clip.audio)
        real = self.scorers.sync(clip.faces, real_mouths(clip.faces, self.spec), clip.audio)
        values |= {f"real_{name}": value for name, value in real.items()}
        drawn = [name for name in ("own", "silence", "other") if name in versions]
        rows = {"real": clip.faces} | {name: versions[name].faces for name in drawn}
        shown = {"real": clip.faces, "generated": own.shown}
        curves = {"real": clip.opening} | {name: opening[name] for name in drawn}
        visuals = make_clip_visuals(rows, shown, curves, speech, clip.audio.samples, self.spec)
        features = self.scorers.inception_features(own.shown, clip.faces)
        facts = {
            "speaker": clip.entry.speaker,
            "split": clip.entry.split,
            "other": other.entry.id if other else None,
            "other_same_speaker": other.entry.speaker == clip.entry.speaker if other else None,
        }
        return ClipResult(clip.entry.id, column, facts, values, visuals, features)

    def _pixels(
        self,
        clip: RealClip,
        encoded: EncodedClip,
        versions: Mapping[str, GeneratedClip],
        speech: metrics.BoolArray,
    ) -> dict[str, float]:
        """Return image scores of the mouth, excluding reference frames, which could be copied."""
        real = real_mouths(clip.faces, self.spec)
        kept = torch.ones(len(real), dtype=torch.bool)
        if len(real) > 1:
            kept[encoded.reference_frames] = False
        target, is_speech = real[kept], torch.from_numpy(speech)[kept]
        mouths = {name: version.mouths[kept] for name, version in versions.items()}
        mouths["reference"] = real[encoded.reference_frames][kept]
        shown = {n: real_mouths(v.shown, self.spec)[kept] for n, v in versions.items()}
        copied = self.generator.copy_reference(encoded)
        shown["reference"] = real_mouths(copied, self.spec)[kept]
        lip_weights = lip_mask_prior(self.spec.mouth_size)
        return (
            self.scorers.pixels(mouths["own"], target)
            | _l1_scores("", mouths, target, is_speech)
            | _l1_scores("lips_", mouths, target, is_speech, lip_weights)
            | _l1_scores("shown_", shown, target, is_speech)
        )


def _audio_versions(clip: RealClip, other: RealClip | None) -> dict[str, ClipAudio]:
    """Return the audio of each generated version."""
    versions = {"own": clip.audio, "silence": clip.audio.silenced()}
    if other is not None:
        # Different sentences may start and end at similar times. Rotated audio avoids this match.
        versions["other"] = other.audio.repeated(len(clip.faces))
        versions["elsewhere"] = other.audio.rotated().repeated(len(clip.faces))
    return versions


def _audio_dependence(
    clip: RealClip, other: RealClip | None, opening: Mapping[str, FloatArray]
) -> dict[str, float]:
    """Return scores of the mouth motion generated from silence and from wrong audio."""
    real, silent = clip.opening, opening["silence"]
    values = {
        "r_silence": metrics.opening_correlation(silent, real),
        "r_ceiling": metrics.pearson(opening["real"], real),
        "opening_silence": float(np.nanmean(silent)) if np.isfinite(silent).any() else np.nan,
        "opening_closed": float(np.nanpercentile(real, 5)),
        "openness_silence": metrics.relative_opening(silent, real),
    }
    if other is not None:
        common = min(len(real), len(other.opening))
        values["r_other"] = metrics.opening_correlation(opening["other"], real)
        values["r_elsewhere"] = metrics.opening_correlation(opening["elsewhere"], real)
        values["r_follows_other"] = metrics.opening_correlation(
            opening["other"][:common], other.opening[:common]
        )
    return values


def _l1_scores(
    prefix: str,
    images: Mapping[str, Tensor],
    target: Tensor,
    is_speech: Tensor,
    weights: Tensor | None = None,
) -> dict[str, float]:
    """Return the L1 of each version, and the ratios of the L1 with wrong audio to own audio."""
    values = {
        f"{prefix}l1_{name}": metrics.l1(images[name], target, weights)
        for name in ("own", *_WRONG_AUDIO, "reference")
        if name in images
    }
    own = images["own"]
    for name, suffix in _WRONG_AUDIO.items():
        if name in images:
            ratio, other = f"{prefix}l1_ratio{suffix}", images[name]
            values[ratio] = metrics.l1_ratio(other, own, target, weights)
            values[f"{ratio}_speech"] = metrics.l1_ratio(
                other[is_speech], own[is_speech], target[is_speech], weights
            )
    return values
