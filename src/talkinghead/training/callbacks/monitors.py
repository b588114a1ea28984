"""Callbacks that log speed, memory and the agreement of generated with real mouth motion.

Shape suffixes: B windows, T frames.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from talkinghead.features.faces.alignment import paste_mouth
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.features.faces.mouth_motion import opening_series, pearson, track_landmarks
from talkinghead.training.modules.lipsync_gan import LipSyncGANModule
from talkinghead.types import FloatArray, UInt8Array

_SMOOTHING = 0.9


class CostMonitor(Callback):
    """Logs `cost/samples_per_s`, `cost/loader_wait_fraction` and `cost/memory_mib`.

    `loader_wait_fraction` is the part of an iteration in which training waits for its batch; it is
    near 0 unless `data.num_workers` is too small. `memory_mib` is the peak of the GPU, or of the
    process on a CPU. Rates are exponential averages over about ten iterations.
    """

    def __init__(self) -> None:
        self._ended_s: float | None = None
        self._waited_s = self._iteration_s = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        # The time between two epochs is spent in validation, not waiting.
        self._ended_s = None

    def on_train_batch_start(self, *_: Any) -> None:
        self._started_s = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        now_s = time.monotonic()
        if self._ended_s is not None:
            self._waited_s = _smooth(self._waited_s, self._started_s - self._ended_s)
            self._iteration_s = _smooth(self._iteration_s, now_s - self._ended_s)
            samples = len(batch["index"]) * trainer.world_size
            pl_module.log("cost/samples_per_s", samples / self._iteration_s)
            pl_module.log("cost/loader_wait_fraction", self._waited_s / self._iteration_s)
            pl_module.log("cost/memory_mib", peak_memory_mib(pl_module.device))
        self._ended_s = time.monotonic()


def _smooth(average: float, value: float) -> float:
    return _SMOOTHING * average + (1 - _SMOOTHING) * value if average else value


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory so far, of the GPU or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class OpeningMonitor(Callback):
    """Logs after every validation how well the generated mouth opening follows the real one.

    Clips of the first validation split are generated with their own audio and with another clip's;
    the detector measures all mouths. Logs averages over the clips: `val/opening_r` (Pearson's r
    over frames), `val/audit/opening_r_other_audio` (the r that does not depend on the audio) and
    `val/opening_motion` (standard deviation of the generated opening over that of the real one).

    Args:
        num_clips: number of clips, from different files if possible; at least two.
        num_frames: length of each clip.
        detector: face detector; see `build_detector`.
    """

    def __init__(self, num_clips: int = 6, num_frames: int = 60, detector: str = "litert") -> None:
        self.num_clips, self.num_frames = num_clips, num_frames
        self._detector: str | FaceDetector = detector

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, LipSyncGANModule) or trainer.sanity_checking:
            return
        if isinstance(self._detector, str):
            self._detector = build_detector(self._detector)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = datamodule.preview_batch(self.num_clips, self.num_frames)
        scores = []
        for index in range(self.num_clips):
            clip = {k: v[index : index + 1] for k, v in batch.items() if isinstance(v, Tensor)}
            other = batch["mel"][(index + 1) % self.num_clips][None]
            scores.append(_score(pl_module, clip, other, self._detector))
        names = ("opening_r", "audit/opening_r_other_audio", "opening_motion")
        for name, values in zip(names, np.array(scores).T, strict=True):
            known = values[np.isfinite(values)]
            if len(known):
                pl_module.log(f"val/{name}", float(known.mean()), sync_dist=True)


def _score(
    module: LipSyncGANModule, clip: Mapping[str, Tensor], other: Tensor, detector: FaceDetector
) -> tuple[float, float, float]:
    """Return r with the clip's own audio, r with `other` [1, W, C, K], and the motion ratio."""
    names = ("reference_face", "reference_lips", "masked_face", "mel", "emotion", "head_turn")
    inputs = {k: clip[k].to(module.device) for k in names if k in clip}
    real = _opening(clip["faces"][0], detector)
    openings = []
    for audio in (inputs["mel"], other.to(module.device)):
        mouths = module(inputs, audio).mouth.float().cpu().clamp(0, 1)
        openings.append(_opening(paste_mouth(clip["faces"], mouths, module.spec)[0], detector))
    own, unrelated = openings
    known = np.isfinite(real) & np.isfinite(own)
    motion = own[known].std() / max(real[known].std(), 1e-6) if known.any() else np.nan
    return pearson(own, real), pearson(unrelated, real), float(motion)


def _opening(faces: Tensor, detector: FaceDetector) -> FloatArray:
    """Return the mouth opening in faces, float [T, 3, H, W] in [0, 1]; NaN without a detection."""
    images: UInt8Array = (faces * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return opening_series(track_landmarks(images, detector), detector.topology)
