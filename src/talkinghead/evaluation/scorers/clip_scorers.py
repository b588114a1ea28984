"""What every video is judged by, whoever made it: the same for `evaluate` and `score`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import DependencyError, UsageError
from talkinghead.evaluation import metrics
from talkinghead.evaluation.clip_generation import CHUNK_FRAMES
from talkinghead.evaluation.scorers import syncnet
from talkinghead.evaluation.scorers.fid import Inception
from talkinghead.evaluation.scorers.identity import FaceRecogniser
from talkinghead.evaluation.scorers.lpips import Lpips
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.models.checkpoint import load_expert
from talkinghead.models.lipsync.decoder import lip_mask_prior
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.types import AVSpec, FloatArray, UInt8Array

logger = logging.getLogger(__name__)

_MIN_SYNC_WINDOWS = 6


@dataclass(frozen=True)
class ScorerOptions:
    """By what to judge.

    Attributes:
        detector: measures the mouths; "litert" or "face_alignment".
        expert: a sync expert's checkpoint, or "default", for LSE-D and LSE-C; none if None.
        syncnet: the published file of SyncNet, for its own LSE-D and LSE-C; none if None.
        lpips: measure LPIPS, where its package is installed.
        identity: a face recogniser's ONNX file; none if None.
        identity_mean: what it takes from the pixels, and
        identity_scale: what it divides them by; see `FaceRecogniser`.
        inception: torchvision's weight file of Inception v3, for FID; none if None.
        device: torch's name.
        num_threads: torch's threads; None leaves them as they are.
    """

    detector: str = "litert"
    expert: str | None = None
    syncnet: str | None = None
    lpips: bool = True
    identity: str | None = None
    identity_mean: float = 127.5
    identity_scale: float = 127.5
    inception: str | None = None
    device: str = "cpu"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.num_threads is not None and self.num_threads < 1:
            raise UsageError(f"num_threads must be at least 1 or null, got {self.num_threads}")
        if self.identity_scale == 0:
            raise UsageError("identity.scale must not be 0: pixels are divided by it")


@dataclass(frozen=True)
class Scorers:
    """The measures, with what they need loaded. `notes` say which were left out, and why."""

    spec: AVSpec
    detector: FaceDetector
    expert: SyncDiscriminator | None = None
    syncnet: syncnet.SyncNet | None = None
    lpips: Lpips | None = None
    identity: FaceRecogniser | None = None
    inception: Inception | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def build(cls, options: ScorerOptions, spec: AVSpec | None = None) -> Scorers:
        """Loads what the options name.

        Args:
            options: by what to judge.
            spec: of the clips; the sync expert's own if None, the default without one.

        Raises:
            CheckpointError: a file cannot be used.
            DependencyError: what the detector needs is not installed.
            UsageError: the expert's AVSpec is another than `spec`.
        """
        if options.num_threads:
            torch.set_num_threads(options.num_threads)
        expert, spec = _load_expert(options, spec)
        notes = _left_out(options)
        lpips, recogniser, lip_reader, inception = None, None, None, None
        if options.lpips:
            try:
                lpips = Lpips(options.device)
            except DependencyError as error:
                notes.append(f"LPIPS is left out: {error}")
                logger.warning("LPIPS is left out: %s", error)
        if options.syncnet is not None:
            lip_reader = syncnet.load_syncnet(options.syncnet).to(options.device)
        if options.identity is not None:
            recogniser = FaceRecogniser(
                options.identity, options.identity_mean, options.identity_scale
            )
        if options.inception is not None:
            inception = Inception(options.inception, options.device)
        detector = build_detector(options.detector)
        return cls(spec, detector, expert, lip_reader, lpips, recogniser, inception, notes)

    @property
    def input_features(self) -> tuple[str, ...]:
        """Names of the audio features that `sync` takes, in order."""
        return ("mel",) if self.expert is None else self.expert.audio_encoder.input_features

    def speech(self, features: Tensor, num_frames: int) -> metrics.BoolArray:
        """In which frames somebody speaks, bool [T], from features [C, M], mel rows first."""
        mel = features[: self.spec.num_mels]
        return metrics.speech_frames(mel, num_frames, self.spec.fps, self.spec)

    def motion(
        self, generated: FloatArray, real: FloatArray, speech: metrics.BoolArray | None
    ) -> dict[str, float]:
        """What the openings [T] of a generated and the real mouth say; NaN where unknown."""
        values = {
            "r_own": metrics.agreement(generated, real),
            "motion_ratio": float(_known(generated).std() / max(_known(real).std(), 1e-8)),
            "opening_own": float(_known(generated).mean()),
            "opening_real": float(_known(real).mean()),
            "found": float(np.isfinite(generated).mean()),
        }
        if speech is not None:
            pauses = metrics.pauses(speech)
            values["r_own_speech"] = metrics.agreement(generated, real, speech)
            values["opening_pauses"] = float(_known(generated[pauses]).mean())
            values["opening_pauses_real"] = float(_known(real[pauses]).mean())
        return values

    def pixels(self, mouths: Tensor, target: Tensor) -> dict[str, float]:
        """How near mouths float [T, 3, H, W] in [0, 1] come to the real ones."""
        values = {
            "psnr": metrics.psnr(mouths, target),
            "ssim": metrics.ssim(mouths, target),
            "l1_own": metrics.l1(mouths, target),
            "lips_l1_own": metrics.l1(mouths, target, lip_mask_prior(mouths.shape[-1])),
            "sharpness_ratio": metrics.sharpness(mouths) / max(metrics.sharpness(target), 1e-8),
        }
        if self.lpips is not None:
            values["lpips"] = self.lpips(mouths, target)
        return values

    def likeness(self, faces: UInt8Array, target: UInt8Array) -> dict[str, float]:
        """Whether canonical faces uint8 [T, face, face, 3] still show the same person."""
        if self.identity is None:
            return {}
        return {"identity": self.identity.similarity(faces, target)}

    def sync(
        self, faces: UInt8Array, mouths: Tensor, features: Tensor, samples: FloatArray
    ) -> dict[str, float]:
        """LSE-D, LSE-C and the offset of a clip, in the space of each expert that is here.

        Args:
            faces: uint8 [T, face, face, 3], canonical.
            mouths: float [T, 3, mouth, mouth] in [0, 1].
            features: float [C, M], the rows of `input_features` from the first frame on.
            samples: float [num_samples], the same.
        """
        embedded: dict[str, tuple[FloatArray, FloatArray]] = {}
        if self.expert is not None and len(mouths) >= self.expert.num_frames:
            sound = mel_windows(
                features, range(len(mouths)), self.spec.fps, self.spec, self.input_features
            )
            embedded[""] = embed_windows(self.expert, mouths, sound)
        if self.syncnet is not None and self.spec.fps == syncnet.FPS:
            embedded["syncnet_"] = syncnet.embed_clip(self.syncnet, faces, samples)
        values: dict[str, float] = {}
        for prefix, (heard, seen) in embedded.items():
            if len(seen) < _MIN_SYNC_WINDOWS:
                continue
            scores = metrics.sync_scores(heard, seen)
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


def _load_expert(
    options: ScorerOptions, spec: AVSpec | None
) -> tuple[SyncDiscriminator | None, AVSpec]:
    """The sync expert, if one is named, and the AVSpec to work by."""
    if options.expert is None:
        return None, spec or AVSpec()
    loaded = load_expert(options.expert)
    if difference := loaded.spec.difference(spec or loaded.spec):
        raise UsageError(
            f"sync.checkpoint={options.expert} was made for another AVSpec ({difference}, expert "
            "first); give one that was trained for this one, or sync.checkpoint=null"
        )
    return cast(SyncDiscriminator, loaded.model.to(options.device)), loaded.spec


def _left_out(options: ScorerOptions) -> list[str]:
    """What is not measured because no file for it was named."""
    files = (
        ("LSE by this project's expert", options.expert, "sync.checkpoint"),
        ("LSE by SyncNet", options.syncnet, "sync.syncnet_path"),
        ("Identity", options.identity, "identity.path"),
        ("FID", options.inception, "inception_path"),
    )
    return [f"{name} is left out: {key} names no file" for name, path, key in files if not path]


def _known(series: FloatArray) -> FloatArray:
    """The finite values, or one NaN where there are none."""
    known = series[np.isfinite(series)]
    return known if len(known) else np.array([np.nan], dtype=np.float32)
