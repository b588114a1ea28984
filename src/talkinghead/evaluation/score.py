"""One clip's scores: rebuilt with its own sound, with another clip's, and with silence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from talkinghead.data.manifest import ClipEntry
from talkinghead.data.storage import ClipFile
from talkinghead.evaluation import metrics
from talkinghead.evaluation.generate import (
    CHUNK_FRAMES,
    ClipGenerator,
    GeneratedClip,
    real_mouths,
)
from talkinghead.features.audio import mel_windows
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.media.timing import mel_centre
from talkinghead.models.generator import lip_prior
from talkinghead.models.sync import SyncDiscriminator
from talkinghead.types import AVSpec, FloatArray, UInt8Array

STRIP_FRAMES = 10
_STRIP_MARGIN = 16


@dataclass(frozen=True)
class RealClip:
    """A prepared clip in memory.

    `faces` uint8 [T, H, W, 3]; `features` float [C, M], mel rows first; `opening` float32 [T].
    """

    entry: ClipEntry
    faces: UInt8Array
    features: Tensor
    opening: FloatArray


@dataclass(frozen=True)
class ClipScores:
    """`values` by the names in docs/metrics.md; `strip` uint8 [H, W, 3]: frames to look at."""

    entry: ClipEntry
    other: ClipEntry | None
    values: dict[str, float]
    strip: UInt8Array | None


def load_clip(
    corpus_dir: Path, entry: ClipEntry, *, prosody: bool = False, max_frames: int | None = None
) -> RealClip:
    """Reads a clip, or its first `max_frames` frames (and all of its sound).

    Raises:
        CorpusError: the clip's file is missing or broken.
    """
    file = ClipFile(corpus_dir / entry.path)
    num_frames = min(len(file), max_frames or len(file))
    features = torch.from_numpy(file.mel())
    if prosody:
        rows = torch.from_numpy(file.tensor("prosody").astype(np.float32))
        features = torch.cat([features, rows])
    opening = file.tensor("mouth_opening")[:num_frames].astype(np.float32)
    return RealClip(entry, file.faces(0, num_frames), features, opening)


class ClipScorer:
    """Scores clips, one by one.

    Args:
        generator: rebuilds them.
        detector: measures the mouths of real and generated faces alike.
        expert: a sync expert for LSE-D and LSE-C; without one they are left out.
    """

    def __init__(
        self,
        generator: ClipGenerator,
        detector: FaceDetector,
        expert: SyncDiscriminator | None = None,
    ) -> None:
        self.generator = generator
        self.spec = generator.spec
        self.detector = detector
        self.expert = expert

    def score(self, clip: RealClip, other: RealClip | None) -> ClipScores:
        """All scores of a clip.

        Args:
            clip: the real one.
            other: the clip whose sound is put to it, to see whether the model listens; None where
                there is none.
        """
        encoded = self.generator.encode(clip.faces)
        # An empty sound is followed by silence, like any other.
        sounds = {"own": clip.features, "silence": clip.features[:, :0]}
        if other is not None:
            sounds["other"] = _repeat_to(other.features, len(clip.faces), self.spec)
        takes = {name: self.generator.speak(encoded, sound) for name, sound in sounds.items()}
        points = {n: metrics.track_landmarks(t.faces, self.detector) for n, t in takes.items()}
        points["real"] = metrics.track_landmarks(clip.faces, self.detector)
        values = self._motion(clip, other, points) | self._pixels(clip, takes)
        if self.expert is not None:
            values |= self._sync(clip, takes["own"], self.expert)
        rows = {"real": clip.faces} | {name: take.faces for name, take in takes.items()}
        strip = draw_strip(rows, np.flatnonzero(self._speech(clip)), self.spec)
        return ClipScores(clip.entry, other.entry if other else None, values, strip)

    def _speech(self, clip: RealClip) -> metrics.BoolArray:
        mel = clip.features[: self.spec.num_mels]
        return metrics.speech_frames(mel, len(clip.faces), self.spec.fps, self.spec)

    def _motion(
        self, clip: RealClip, other: RealClip | None, points: dict[str, FloatArray]
    ) -> dict[str, float]:
        """What the mouth does, by landmarks."""
        topology = self.detector.topology
        opening = {name: metrics.opening_series(p, topology) for name, p in points.items()}
        own, silent, real = opening["own"], opening["silence"], clip.opening
        values = {
            "r_own": metrics.pearson(own, real),
            "r_own_speech": metrics.pearson(own, real, self._speech(clip)),
            "r_silence": metrics.pearson(silent, real),
            "r_ceiling": metrics.pearson(metrics.opening_series(points["real"], topology), real),
            "opening_real": float(_known(real).mean()),
            "opening_own": float(_known(own).mean()),
            "opening_silence": float(_known(silent).mean()),
            "opening_closed": float(np.percentile(_known(real), 5)),
            "motion_ratio": float(_known(own).std() / max(_known(real).std(), 1e-8)),
            "lmd": metrics.landmark_distance(points["own"], points["real"], topology),
            "found": float(np.isfinite(own).mean()),
        }
        if other is not None:
            common = min(len(real), len(other.opening))
            heard = opening["other"]
            values["r_other"] = metrics.pearson(heard, real)
            values["r_follows_other"] = metrics.pearson(heard[:common], other.opening[:common])
        return values

    def _pixels(self, clip: RealClip, takes: dict[str, GeneratedClip]) -> dict[str, float]:
        """How near the mouth's pixels come. The reference frame is left out: it could be copied."""
        real = real_mouths(clip.faces, self.spec)
        chosen = min(self.generator.reference_frame, len(real) - 1)
        kept = (
            torch.arange(len(real)) != chosen if len(real) > 1 else torch.ones(1, dtype=torch.bool)
        )
        target, own = real[kept], takes["own"].mouths[kept]
        values = {
            "psnr": metrics.psnr(own, target),
            "ssim": metrics.ssim(own, target),
            "sharpness_ratio": metrics.sharpness(own) / max(metrics.sharpness(target), 1e-8),
        }
        copied = real[chosen].expand_as(target)
        for prefix, weights in (("", None), ("lips_", lip_prior(self.spec.mouth_size))):
            l1_own = metrics.l1(own, target, weights)
            values[f"{prefix}l1_own"] = l1_own
            values[f"{prefix}l1_reference"] = metrics.l1(copied, target, weights)
            if "other" in takes:
                l1_other = metrics.l1(takes["other"].mouths[kept], target, weights)
                values[f"{prefix}l1_other"] = l1_other
                values[f"{prefix}l1_ratio"] = l1_other / max(l1_own, 1e-8)
        return values

    def _sync(
        self, clip: RealClip, own: GeneratedClip, expert: SyncDiscriminator
    ) -> dict[str, float]:
        """LSE-D, LSE-C and offset of the generated and the real mouth, in the expert's space."""
        num_frames = len(clip.faces)
        if num_frames < 2 * expert.num_frames:
            return {}
        sound = mel_windows(clip.features, range(num_frames), self.spec.fps, self.spec)
        values: dict[str, float] = {}
        mouths = {"": own.mouths, "real_": real_mouths(clip.faces, self.spec)}
        for prefix, pictures in mouths.items():
            scores = metrics.sync_scores(*embed_windows(expert, pictures, sound))
            values[f"{prefix}lse_d"] = scores.lse_d
            values[f"{prefix}lse_c"] = scores.lse_c
            values[f"{prefix}sync_offset"] = float(scores.offset)
            values[f"{prefix}lse_d_at_zero"] = scores.distance_at_zero
        return values


@torch.inference_mode()
def embed_windows(
    expert: SyncDiscriminator, mouths: Tensor, sound: Tensor
) -> tuple[FloatArray, FloatArray]:
    """A clip in a sync expert's space, one window starting at every frame.

    Args:
        expert: see `SyncDiscriminator`; its windows have S frames.
        mouths: float [T, 3, H, W] in [0, 1].
        sound: float [T, C, mel_window], one window a frame.

    Returns:
        Embeddings of the sound and of the mouth, each float32 [T - S + 1, D].
    """
    device = next(expert.parameters()).device
    starts = range(len(mouths) - expert.num_frames + 1)
    mean = mouths.mean(dim=0)
    heard, seen = [], []
    for first in range(0, len(starts), CHUNK_FRAMES):
        chunk = starts[first : first + CHUNK_FRAMES]
        index = torch.tensor(chunk)[:, None] + torch.arange(expert.num_frames)
        means = mean.expand(len(chunk), -1, -1, -1)
        seen.append(expert.embed_video(mouths[index].to(device), means.to(device)).cpu())
        heard.append(expert.embed_audio(sound[index].to(device)).cpu())
    return torch.cat(heard).numpy(), torch.cat(seen).numpy()


def _repeat_to(features: Tensor, num_frames: int, spec: AVSpec) -> Tensor:
    """A sound repeated until it covers so many frames: its end is not heard as silence."""
    needed = mel_centre(num_frames, spec.fps, spec) + spec.mel_window
    return features.repeat(1, -(-needed // max(1, features.shape[1])))


def draw_strip(
    rows: dict[str, UInt8Array], frames: npt.NDArray[np.intp], spec: AVSpec
) -> UInt8Array:
    """Frames side by side, a row for each take, its name in the corner.

    Args:
        rows: takes by name, uint8 [T, face, face, 3], all of the same T.
        frames: the frames to choose from (all, if empty); `STRIP_FRAMES` are drawn, evenly spaced.
        spec: for the mouth's box.

    Returns:
        uint8 [H, W, 3].
    """
    if len(frames) == 0:
        frames = np.arange(len(next(iter(rows.values()))))
    chosen = frames[np.linspace(0, len(frames) - 1, STRIP_FRAMES).round().astype(int)]
    x0, y0, x1, y1 = (int(v) for v in spec.mouth_box)
    top, left = max(0, y0 - _STRIP_MARGIN), max(0, x0 - _STRIP_MARGIN)
    drawn = []
    for name, faces in rows.items():
        crops = faces[chosen, top : y1 + _STRIP_MARGIN, left : x1 + _STRIP_MARGIN]
        row = np.ascontiguousarray(np.concatenate(list(crops), axis=1))
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            place, font = (4, 16), cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(row, name, place, font, 0.5, colour, thickness, cv2.LINE_AA)
        drawn.append(row)
    return np.concatenate(drawn)


def _known(series: FloatArray) -> FloatArray:
    """The finite values, or one NaN where there are none."""
    known = series[np.isfinite(series)]
    return known if len(known) else np.array([np.nan], dtype=np.float32)
