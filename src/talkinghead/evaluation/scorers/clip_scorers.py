"""Scores of one clip, shared by `evaluate` and `score`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import DependencyError, UsageError
from talkinghead.evaluation import metrics
from talkinghead.evaluation.clip_audio import ClipAudio
from talkinghead.evaluation.scorers import syncnet
from talkinghead.evaluation.scorers.image_scorers import FaceRecogniser, Inception, Lpips
from talkinghead.evaluation.scorers.sound_times import SoundTimes, read_sound_times
from talkinghead.features.faces.alignment import LIP_POINTS, lip_motion
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.models.checkpoint import load_expert
from talkinghead.models.lipsync.mouth_painting import lip_mask_prior
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior, predict_lip_motion
from talkinghead.sync.embeddings import embed_windows
from talkinghead.sync.lip_offset import measure_lip_offset
from talkinghead.types import GENERATOR_FIELDS, AVSpec, FloatArray, UInt8Array
from talkinghead.value_rules import NonNegativeInt, PositiveFloat, PositiveInt, check_fields

logger = logging.getLogger(__name__)

_MIN_SYNC_WINDOWS = 6
_MAX_LIP_OFFSET = 15


@dataclass(frozen=True)
class SyncNetworkOptions:
    """Options for the networks that measure LSE-D and LSE-C.

    Attributes:
        checkpoint: Checkpoint of a sync expert, or "default" for the packaged sync expert; None
            skips these scores.
        syncnet_path: Published weights of SyncNet (syncnet_v2.model), for SyncNet's LSE-D and
            LSE-C; None skips these scores.
    """

    checkpoint: str | Path | None = "default"
    syncnet_path: str | Path | None = None


@dataclass(frozen=True)
class IdentityOptions:
    """Options for the face recogniser of the identity score.

    Attributes:
        path: An ArcFace-style ONNX file; None skips the score.
        mean: Value subtracted from the pixel values (0 to 255); OpenCV's SFace needs 0.
        scale: Divisor of the pixel values after the subtraction; OpenCV's SFace needs 1.
    """

    path: str | Path | None = None
    mean: float = 127.5
    scale: PositiveFloat = 127.5

    def __post_init__(self) -> None:
        check_fields(self, "identity.")


@dataclass(frozen=True)
class ScorerOptions:
    """Options for the selection of scores and of the networks that they need.

    Attributes:
        detector: Face detector that measures the mouths, "litert" or "face_alignment".
        sync: Networks for LSE-D and LSE-C.
        lpips: Compute LPIPS, if stlpips-pytorch is installed (talkinghead[offline]).
        identity: Face recogniser for the identity score.
        inception_path: Inception v3 weights of torchvision (inception_v3_google-0cc3c7bd.pth), for
            FID; None skips it.
        max_frames: Number of frames scored from the start of each clip; None for all.
        num_strips: Number of best clips and of worst clips in the report, per group or system.
        closures: CSV file with the times of the sounds p, b and m (columns clip and time_s), for
            the closure rate, and, with a column sound, of w, u and o for the rounding rate; None
            skips them.
        device: Device of the networks, such as cpu or cuda.
        num_threads: Number of torch threads; None for torch's default.
    """

    detector: str = "litert"
    sync: SyncNetworkOptions = SyncNetworkOptions()
    lpips: bool = True
    identity: IdentityOptions = IdentityOptions()
    inception_path: str | Path | None = None
    max_frames: PositiveInt | None = 250
    num_strips: NonNegativeInt = 2
    closures: str | Path | None = None
    device: str = "cpu"
    num_threads: PositiveInt | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Scorers:
    """The networks of the selected scores; `notes` list the scores that are left out."""

    spec: AVSpec
    detector: FaceDetector
    expert: SyncDiscriminator | None = None
    syncnet: syncnet.SyncNet | None = None
    lpips: Lpips | None = None
    identity: FaceRecogniser | None = None
    inception: Inception | None = None
    lip_prior: LipPrior | None = None
    sounds: Mapping[str, SoundTimes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        options: ScorerOptions,
        spec: AVSpec | None = None,
        lip_prior: LipPrior | None = None,
    ) -> Scorers:
        """Load the networks that the options name.

        Without `spec`, the AVSpec is that of the sync expert, or the default one. The lip prior
        measures the audio-video offset.

        Raises:
            CheckpointError: a file cannot be used.
            DependencyError: the detector's package is not installed.
            UsageError: the expert's AVSpec differs from `spec`.
        """
        if options.num_threads:
            torch.set_num_threads(options.num_threads)
        expert, spec = _load_expert(options, spec)
        files = {
            "LSE by this project's expert": ("sync.checkpoint", options.sync.checkpoint),
            "LSE by SyncNet": ("sync.syncnet_path", options.sync.syncnet_path),
            "Identity": ("identity.path", options.identity.path),
            "FID": ("inception_path", options.inception_path),
        }
        notes = [
            f"{n} is left out: {key} names no file" for n, (key, path) in files.items() if not path
        ]
        lpips, sync_network, recogniser, inception = None, None, None, None
        if options.lpips:
            try:
                lpips = Lpips(options.device)
            except DependencyError as error:
                notes.append(f"LPIPS is left out: {error}")
                logger.warning("LPIPS is left out: %s", error)
        if options.sync.syncnet_path is not None:
            sync_network = syncnet.load_syncnet(options.sync.syncnet_path).to(options.device)
        if options.identity.path is not None:
            recogniser = FaceRecogniser(**vars(options.identity))
        if options.inception_path is not None:
            inception = Inception(options.inception_path, options.device)
        detector = build_detector(options.detector)
        networks = (expert, sync_network, lpips, recogniser, inception)
        sounds = read_sound_times(Path(options.closures)) if options.closures else {}
        return cls(spec, detector, *networks, lip_prior, sounds, notes)

    @property
    def input_features(self) -> tuple[str, ...]:
        """Names of the audio features that `sync` needs, in order."""
        return ("mel",) if self.expert is None else self.expert.audio_encoder.input_features

    def speech(self, audio: ClipAudio, num_frames: int) -> metrics.BoolArray:
        """Return a mask of the frames with speech, bool [num_frames]."""
        return metrics.speech_frames(audio.mel, num_frames, self.spec.fps, self.spec)

    def motion(
        self, generated: FloatArray, real: FloatArray, speech: metrics.BoolArray | None
    ) -> dict[str, float]:
        """Return scores of the mouth opening [T] of a generated video and of the real video."""
        best = metrics.correlation_in_step(generated, real)
        values = {
            "r_own": metrics.opening_correlation(generated, real),
            "r_in_step": best.r,
            "step_frames": float(best.frames),
            "step_error": best.standard_error,
            "motion_ratio": float(_known(generated).std() / max(_known(real).std(), 1e-8)),
            "opening_own": float(_known(generated).mean()),
            "opening_real": float(_known(real).mean()),
            "found": float(np.isfinite(generated).mean()),
        }
        if speech is not None:
            pauses = metrics.pause_frames(speech)
            values["r_own_speech"] = metrics.opening_correlation(generated, real, speech)
            values["opening_pauses"] = float(_known(generated[pauses]).mean())
            values["opening_pauses_real"] = float(_known(real[pauses]).mean())
        return values

    def lip_shape(
        self, generated: FloatArray, real: FloatArray, step_frames: float
    ) -> dict[str, float]:
        """Return scores of the lip points at the shift with the largest r of the opening.

        The landmarks are float [T, P, 2] in the canonical face; `step_frames` is positive if the
        generated mouth is late.
        """
        topology, shift = self.detector.topology, int(step_frames)
        width, motion = metrics.width_series, metrics.lip_shape_motion
        widths = metrics.in_step(width(generated, topology), width(real, topology), shift)
        ours, theirs = metrics.in_step(motion(generated, topology), motion(real, topology), shift)
        return {
            "r_width": metrics.opening_correlation(*widths),
            "r_lip_shape": metrics.lip_shape_correlation(ours, theirs),
            "lip_shape_error": metrics.lip_shape_error(ours, theirs),
        }

    def sound_rates(
        self, clip: str, generated: FloatArray, real: FloatArray, openings: Sequence[FloatArray]
    ) -> dict[str, float]:
        """Return the closure and rounding rates, if the sounds of the clip are known.

        The landmarks are float [T, P, 2] in the canonical face; `openings` are those of the
        generated and the real mouth [T].
        """
        if clip not in self.sounds:
            return {}
        sounds, fps, values = self.sounds[clip], self.spec.fps, dict[str, float]()
        for suffix, points, opening in zip(("", "_real"), (generated, real), openings, strict=True):
            width = metrics.width_series(points, self.detector.topology)
            closure = metrics.closure_rate(opening, sounds.closed_s, fps)
            values[f"closure_rate{suffix}"] = closure
            if sounds.rounded_s:
                rate = metrics.rounding_rate(width, sounds.rounded_s, fps)
                values[f"rounding_rate{suffix}"] = rate
        return values

    def pixels(self, mouths: Tensor, target: Tensor) -> dict[str, float]:
        """Return image scores of mouths float [T, 3, H, W] in [0, 1]."""
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
        """Return the identity score of canonical faces uint8 [T, face, face, 3], if selected."""
        return {} if self.identity is None else {"identity": self.identity(faces, target)}

    def inception_features(
        self, faces: UInt8Array, target: UInt8Array
    ) -> tuple[FloatArray, FloatArray] | None:
        """Return the features of generated and real faces for FID, if FID is selected."""
        if self.inception is None:
            return None
        return self.inception.features(faces), self.inception.features(target)

    def lip_offset(self, points: FloatArray, audio: ClipAudio) -> dict[str, float]:
        """Return the offset that the lip prior measures, if there is one.

        The landmarks are float [T, P, 2] in the canonical face; the audio starts with the first
        frame.
        """
        if self.lip_prior is None or points.shape[1] == 0:
            return {}
        lips = lip_motion(points[:, list(LIP_POINTS[self.detector.topology])])
        predicted = predict_lip_motion(self.lip_prior, audio.samples, self.spec)
        offset = measure_lip_offset([(predicted, lips)], _MAX_LIP_OFFSET)
        return {
            "lip_offset": offset.frames,
            "lip_offset_error": offset.standard_error,
            "lip_offset_r": offset.correlation,
        }

    def sync(self, faces: UInt8Array, mouths: Tensor, audio: ClipAudio) -> dict[str, float]:
        """Return LSE-D, LSE-C and the offset of a clip, for each available sync network.

        The faces are uint8 [T, face, face, 3], the mouths float [T, 3, mouth, mouth] in [0, 1]. The
        audio starts with the first frame, and has the features `input_features`.
        """
        embedded: dict[str, tuple[FloatArray, FloatArray]] = {}
        if self.expert is not None and len(mouths) >= self.expert.num_frames:
            windows = audio.windows(len(mouths), self.input_features)
            embedded[""] = embed_windows(self.expert, mouths, windows)
        if self.syncnet is not None and self.spec.fps == syncnet.FPS:
            embedded["syncnet_"] = syncnet.embed_clip(self.syncnet, faces, audio.samples)
        values: dict[str, float] = {}
        for prefix, (audio_embeddings, video_embeddings) in embedded.items():
            if len(video_embeddings) < _MIN_SYNC_WINDOWS:
                continue
            scores = metrics.sync_scores(audio_embeddings, video_embeddings)
            values[f"{prefix}lse_d"] = scores.lse_d
            values[f"{prefix}lse_c"] = scores.lse_c
            values[f"{prefix}sync_offset"] = float(scores.offset)
            values[f"{prefix}lse_d_at_zero"] = scores.distance_at_zero
        return values


def _load_expert(
    options: ScorerOptions, spec: AVSpec | None
) -> tuple[SyncDiscriminator | None, AVSpec]:
    """Return the sync expert, if the options name a checkpoint, and the AVSpec to use."""
    if options.sync.checkpoint is None:
        return None, spec or AVSpec()
    loaded = load_expert(options.sync.checkpoint)
    spec = spec or loaded.spec
    if difference := loaded.spec.difference(spec, GENERATOR_FIELDS):
        raise UsageError(
            f"sync.checkpoint={options.sync.checkpoint} was trained for another AVSpec "
            f"({difference}, expert first); give an expert trained for the AVSpec of the clips, or "
            "sync.checkpoint=null"
        )
    return cast(SyncDiscriminator, loaded.model.to(options.device)), spec


def _known(series: FloatArray) -> FloatArray:
    """Return the finite values, or one NaN if there are none."""
    known = series[np.isfinite(series)]
    return known if len(known) else np.array([np.nan], dtype=np.float32)
