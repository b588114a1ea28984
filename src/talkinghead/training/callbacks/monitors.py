"""Callbacks that log speed, memory use, and the similarity of generated and real motion.

Shape suffixes: B windows, T frames.
"""

from __future__ import annotations

import math
import sys
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
from talkinghead.value_rules import PositiveInt

_SMOOTHING = 0.9


class CostMonitor(Callback):
    """A callback that logs the speed and the memory use of training.

    It logs `cost/samples_per_s`, `cost/loader_wait_fraction` and `cost/memory_mib`.
    `loader_wait_fraction` is the fraction of the time in which training waits for the next batch;
    if it is not near 0, increase `data.num_workers`. `memory_mib` is the peak memory of the GPU, or
    of the process on a CPU. Rates are exponential averages over about ten iterations.
    """

    def __init__(self) -> None:
        self._ended_s: float | None = None
        self._waited_s = self._iteration_s = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        # The time between two epochs is validation, not waiting time.
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
    """Return the peak memory in MiB of a GPU, or of this process if the device is a CPU.

    NaN on Windows, where the peak of a process is not measured.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return math.nan
    import resource

    # macOS counts bytes, Linux KiB.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


class OpeningMonitor(Callback):
    """A callback that compares the generated and the real mouth opening after every validation.

    Clips of the first validation split are generated with their own audio and with the audio of
    another clip, and the detector measures all mouth openings. The logged values are averages over
    the clips: `val/opening_r` (Pearson's r over the frames), `val/audit/opening_r_other_audio` (r
    with the other audio) and `val/opening_motion` (standard deviation of the generated opening
    divided by that of the real opening).

    Args:
        num_clips: Number of clips, at least two; from different files if possible.
        num_frames: Number of frames of each clip.
        detector: Face detector; see `build_detector`.
    """

    def __init__(
        self, num_clips: PositiveInt = 6, num_frames: PositiveInt = 60, detector: str = "litert"
    ) -> None:
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
    """Return r with the audio of the clip, r with `other` [1, W, C, K], and the motion ratio."""
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
    """Return the mouth opening of faces, float [T, 3, H, W] in [0, 1]; NaN if none is found."""
    images: UInt8Array = (faces * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return opening_series(track_landmarks(images, detector), detector.topology)
