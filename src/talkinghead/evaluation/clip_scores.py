"""One clip's scores: rebuilt with its own sound, with another clip's, and with silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkinghead.data.clip_features import ClipFeatureReader
from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import ClipEntry
from talkinghead.evaluation import metrics
from talkinghead.evaluation.clip_generation import (
    ClipGenerator,
    EncodedClip,
    GeneratedClip,
    real_mouths,
)
from talkinghead.evaluation.report.clip_visuals import make_clip_visuals
from talkinghead.evaluation.report.summary import Scored
from talkinghead.evaluation.scorers.clip_scorers import Scorers
from talkinghead.features.audio_features import input_features, select_features
from talkinghead.media.timing import mel_centre
from talkinghead.models.lipsync.decoder import lip_mask_prior
from talkinghead.types import AVSpec, FloatArray, UInt8Array

_WRONG = {"other": "", "elsewhere": "_elsewhere"}
"""Wrong sounds, and how their scores end."""


@dataclass(frozen=True)
class RealClip:
    """A prepared clip in memory.

    `faces` uint8 [T, H, W, 3]; `features` float [C, M], mel rows first; `opening` float32 [T];
    `lips` float32 [T, 20, 2], canonical pixels; `samples` float32 [num_samples].
    """

    entry: ClipEntry
    faces: UInt8Array
    features: Tensor
    opening: FloatArray
    lips: FloatArray
    samples: FloatArray


def load_clip(
    corpus_dir: Path,
    entry: ClipEntry,
    *,
    reader: ClipFeatureReader | None = None,
    max_frames: int | None = None,
) -> RealClip:
    """Reads a clip, or its first `max_frames` frames (and all of its sound).

    Raises:
        CorpusError: the clip's file is missing or broken.
    """
    file = ClipFile(corpus_dir / entry.path)
    num_frames = min(len(file), max_frames or len(file))
    features = torch.from_numpy(file.mel()) if reader is None else reader.read(file)
    opening = file.tensor("mouth_opening")[:num_frames].astype(np.float32)
    lips = file.tensor("lips")[:num_frames].astype(np.float32)
    samples = file.tensor("audio").astype(np.float32) / np.float32(32_767)
    return RealClip(entry, file.faces(0, num_frames), features, opening, lips, samples)


class ClipScorer:
    """Scores clips, one by one.

    Args:
        generator: rebuilds them.
        scorers: measure real and generated faces alike.
    """

    def __init__(self, generator: ClipGenerator, scorers: Scorers) -> None:
        self.generator = generator
        self.spec = generator.spec
        self.scorers = scorers
        own, expert = generator.model.input_features, scorers.input_features
        self.audio_features = input_features((*own, *expert))

    def score(self, clip: RealClip, other: RealClip | None, column: str = "clips") -> Scored:
        """All scores of a clip.

        Args:
            clip: the real one.
            other: the clip whose sound is put to it, to see whether the model listens; None where
                there is none.
            column: of the report, where the clip belongs.
        """
        encoded = self.generator.encode(clip.faces, clip.lips)
        # An empty sound is followed by silence, like any other.
        sounds = {"own": (clip.features, clip.samples)}
        sounds["silence"] = clip.features[:, :0], clip.samples[:0]
        if other is not None:
            sound = other.features, torch.from_numpy(other.samples)
            # Sentences begin and end alike: from the middle on, even their timing is another.
            turned = [_turn(part) for part in sound]
            for name, (features, samples) in {"other": sound, "elsewhere": turned}.items():
                repeated = _repeat_to(features, len(clip.faces), self.spec)
                times = repeated.shape[1] // max(1, features.shape[1])
                sounds[name] = repeated, samples.repeat(times).numpy()
        takes = {
            name: self.generator.speak(
                encoded, self._select(features, self.generator.model.input_features), samples
            )
            for name, (features, samples) in sounds.items()
        }
        detector, topology = self.scorers.detector, self.scorers.detector.topology
        points = {n: metrics.track_landmarks(t.faces, detector) for n, t in takes.items()}
        points["real"] = metrics.track_landmarks(clip.faces, detector)
        opening = {name: metrics.opening_series(p, topology) for name, p in points.items()}
        speech = self.scorers.speech(clip.features, len(clip.faces))
        own = takes["own"]
        values = self.scorers.motion(opening["own"], clip.opening, speech)
        values |= self._listening(clip, other, opening)
        values["lmd"] = metrics.landmark_distance(points["own"], points["real"], topology)
        values |= self._pixels(clip, encoded, takes, speech)
        values |= self.scorers.likeness(own.shown, clip.faces)
        values |= self._sync(clip, own)
        drawn = [name for name in takes if name != "elsewhere"]
        rows = {"real": clip.faces} | {name: takes[name].faces for name in drawn}
        shown = {"real": clip.faces, "generated": own.shown}
        curves = {"real": clip.opening, "own": opening["own"]}
        curves |= {name: opening[name] for name in ("silence", "other") if name in opening}
        visuals = make_clip_visuals(rows, shown, curves, speech, clip.samples, self.spec)
        return Scored(
            clip.entry.id, column, _facts(clip, other), values, visuals, self._features(clip, own)
        )

    def _listening(
        self, clip: RealClip, other: RealClip | None, opening: dict[str, FloatArray]
    ) -> dict[str, float]:
        """What the mouth does with the wrong sound and with none."""
        real, silent = clip.opening, opening["silence"]
        values = {
            "r_silence": metrics.agreement(silent, real),
            "r_ceiling": metrics.pearson(opening["real"], real),
            "opening_silence": float(np.nanmean(silent)) if np.isfinite(silent).any() else np.nan,
            "opening_closed": float(np.nanpercentile(real, 5)),
            "openness_silence": metrics.openness(silent, real),
        }
        if other is not None:
            common = min(len(real), len(other.opening))
            heard = opening["other"]
            values["r_other"] = metrics.agreement(heard, real)
            values["r_elsewhere"] = metrics.agreement(opening["elsewhere"], real)
            values["r_follows_other"] = metrics.agreement(heard[:common], other.opening[:common])
        return values

    def _pixels(
        self,
        clip: RealClip,
        encoded: EncodedClip,
        takes: dict[str, GeneratedClip],
        speech: metrics.BoolArray,
    ) -> dict[str, float]:
        """How near the mouth's pixels come. The reference frame is left out: it could be copied."""
        real = real_mouths(clip.faces, self.spec)
        chosen = min(self.generator.reference_frame, len(real) - 1)
        kept = (
            torch.arange(len(real)) != chosen if len(real) > 1 else torch.ones(1, dtype=torch.bool)
        )
        target, spoken = real[kept], torch.from_numpy(speech)[kept]
        values = self.scorers.pixels(takes["own"].mouths[kept], target)
        mouths = {name: take.mouths[kept] for name, take in takes.items()}
        mouths["reference"] = real[chosen].expand_as(target)
        shown = {n: real_mouths(t.shown, self.spec)[kept] for n, t in takes.items()}
        shown["reference"] = real_mouths(self.generator.show_reference(encoded), self.spec)[kept]
        for prefix, pictures, weights in (
            ("", mouths, None),
            ("lips_", mouths, lip_mask_prior(self.spec.mouth_size)),
            ("shown_", shown, None),
        ):
            for name in ("own", *_WRONG, "reference"):
                if name in pictures:
                    values[f"{prefix}l1_{name}"] = metrics.l1(pictures[name], target, weights)
            for name, suffix in _WRONG.items():
                if name in pictures:
                    own, other = pictures["own"], pictures[name]
                    values[f"{prefix}l1_ratio{suffix}"] = metrics.l1_ratio(
                        other, own, target, weights
                    )
                    values[f"{prefix}l1_ratio{suffix}_speech"] = metrics.l1_ratio(
                        other[spoken], own[spoken], target[spoken], weights
                    )
        return values

    def _sync(self, clip: RealClip, own: GeneratedClip) -> dict[str, float]:
        """LSE-D, LSE-C and offset of the generated and the real mouth."""
        real = real_mouths(clip.faces, self.spec)
        sound = self._select(clip.features, self.scorers.input_features), clip.samples
        values = self.scorers.sync(own.faces, own.mouths, *sound)
        theirs = self.scorers.sync(clip.faces, real, *sound)
        return values | {f"real_{name}": value for name, value in theirs.items()}

    def _select(self, features: Tensor, names: Sequence[str]) -> Tensor:
        return select_features(features, self.spec, self.audio_features, names)

    def _features(self, clip: RealClip, own: GeneratedClip) -> tuple[FloatArray, FloatArray] | None:
        if self.scorers.inception is None:
            return None
        features = self.scorers.inception.features
        return features(own.shown), features(clip.faces)


def _facts(clip: RealClip, other: RealClip | None) -> dict[str, str | bool | None]:
    same = other.entry.speaker == clip.entry.speaker if other else None
    return {
        "speaker": clip.entry.speaker,
        "split": clip.entry.split,
        "other": other.entry.id if other else None,
        "other_same_speaker": same,
    }


def _turn(sound: Tensor) -> Tensor:
    """Features [C, M] or samples [N] from their middle on, round to their beginning."""
    return sound.roll(-(sound.shape[-1] // 2), -1)


def _repeat_to(features: Tensor, num_frames: int, spec: AVSpec) -> Tensor:
    """A sound repeated until it covers so many frames: its end is not heard as silence."""
    needed = mel_centre(num_frames, spec.fps, spec) + spec.mel_window
    return features.repeat(1, -(-needed // max(1, features.shape[1])))
