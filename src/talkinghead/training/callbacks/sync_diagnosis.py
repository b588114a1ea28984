"""Diagnosis of a sync expert whose loss stays at the level of random guessing (chance)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.manifest import Manifest
from talkinghead.errors import CorpusError
from talkinghead.sync.offset import lip_offset
from talkinghead.training.modules.sync_expert_module import SyncExpertModule
from talkinghead.value_rules import NonNegativeFloat, PositiveInt

logger = logging.getLogger(__name__)

_MIN_WINDOWS = 64
_MAX_SILENT = 0.5
_MAX_STEP = 0.2  # Relative change of the weights; normal steps change them by 1 %.
_MAX_EXCESS = 3.0  # Excess over chance in nats, caused by confident wrong predictions.
_MIN_SPREAD = 1e-4
_MAX_OFFSET = 2
_MIN_IN_SYNC = 0.5


@dataclass(frozen=True)
class Evidence:
    """Measurements of the last iterations and of the corpus.

    Attributes:
        loss: Mean loss.
        chance: Mean loss of a sync expert that cannot distinguish the windows.
        num_windows: Number of windows of a batch.
        silent: Fraction of windows without speech.
        spread_video: Variance of the video embeddings over a batch, in [0, 1].
        spread_audio: Variance of the audio embeddings over a batch, in [0, 1].
        step_size: Largest change of the weights by a step so far, as a fraction of their norm.
        grad_norm: Norm of the gradients before clipping.
        offsets: Delay of the audio relative to the lip motion in some clips, in frames.
    """

    loss: float
    chance: float
    num_windows: int
    silent: float
    spread_video: float
    spread_audio: float
    step_size: float
    grad_norm: float
    offsets: Sequence[int] = ()


def diagnose(evidence: Evidence) -> str:
    """Return the most likely cause of a loss at chance and the remedy, in one line.

    The order of the checks matters, because some causes have the symptoms of others: silent clips
    affect all measurements, and a learning rate that is too high also collapses embeddings.
    """
    e = evidence
    if e.silent > _MAX_SILENT:
        return (
            f"{e.silent:.0%} of the windows are silent: use clips with speech, raise their audio "
            "level, or cut the pauses"
        )
    slower = f"(gradient norm now {e.grad_norm:.2g}): start again with a tenth of optimizer.lr"
    if e.step_size > _MAX_STEP:
        return (
            f"the learning rate is too high: a step moved the weights by {e.step_size:.0%} of "
            f"their size {slower}"
        )
    for name, spread in (("video", e.spread_video), ("audio", e.spread_audio)):
        if spread < _MIN_SPREAD:
            return (
                f"the {name} embedding has collapsed: its variance over a batch is {spread:.1g} "
                f"(gradient norm {e.grad_norm:.2g}): start again from new weights (another seed), "
                "with a lower optimizer.lr"
            )
    if e.loss > e.chance + _MAX_EXCESS:
        return f"the learning rate is too high: the loss jumps far above chance {slower}"
    if (cause := _diagnose_offsets(e.offsets)) is not None:
        return cause
    if e.num_windows < _MIN_WINDOWS:
        return (
            f"the batch is too small: {e.num_windows} windows give few negatives: raise "
            f"data.batch_size or data.num_frames to {_MIN_WINDOWS} windows or more"
        )
    return (
        f"the measurements show no cause (steps of at most {e.step_size:.1%} of the "
        f"weights, gradient norm {e.grad_norm:.2g}, {e.silent:.0%} silent, {e.num_windows} "
        "windows): train longer, triple optimizer.lr, or widen model.sync_expert"
    )


def _diagnose_offsets(offsets: Sequence[int]) -> str | None:
    if not offsets:
        return None
    advice = "prepare the corpus again with sync.checkpoint=default, or correct the videos"
    median = round(float(np.median(offsets)))
    if abs(median) > _MAX_OFFSET:
        return (
            f"the audio is {abs(median)} frames {'late' if median > 0 else 'early'}, measured on "
            f"the lips of {len(offsets)} clips: {advice}"
        )
    in_sync = float(np.mean(np.abs(offsets) <= _MAX_OFFSET))
    if in_sync < _MIN_IN_SYNC:
        return (
            f"audio and lips are in sync in only {in_sync:.0%} of {len(offsets)} clips: {advice}; "
            "check that the audio belongs to the face"
        )
    return None


class SyncDiagnosis(Callback):
    """A callback that warns, with the likely cause, if the loss of a sync expert is at chance.

    The run continues. For other modules the callback does nothing.

    Args:
        every_n_iterations: Number of iterations between checks. The measurements are means over the
            last quarter of these iterations.
        margin: A loss above this fraction of the chance loss counts as chance.
        num_clips: Number of training clips whose audio offset is measured for the diagnosis.
    """

    def __init__(
        self,
        every_n_iterations: PositiveInt = 200,
        margin: NonNegativeFloat = 0.95,
        num_clips: PositiveInt = 32,
    ) -> None:
        self.every_n_iterations, self.margin = every_n_iterations, margin
        self.num_clips = num_clips
        self._measured: deque[dict[str, Tensor]] = deque(maxlen=max(1, every_n_iterations // 4))
        self._before: list[Tensor] = []
        self._largest_step = torch.zeros(())

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if isinstance(pl_module, SyncExpertModule):
            self._before = [w.clone() for w in _weights(pl_module)]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if not isinstance(pl_module, SyncExpertModule):
            return
        if self._before:  # Empty while gradients are being accumulated.
            self._measured.append(self._measure(trainer.callback_metrics, pl_module))
            self._before = []
        due = pl_module.iteration % self.every_n_iterations == 0
        if due and self._measured and trainer.is_global_zero:
            num_windows = trainer.world_size * pl_module.num_windows(batch)
            self._check(trainer, pl_module, num_windows)

    def _measure(
        self, metrics: Mapping[str, Tensor], module: SyncExpertModule
    ) -> dict[str, Tensor]:
        """Return the measurements of this iteration as tensors, without waiting for the device."""
        prefix = "train/sync_expert/"
        names = ("loss", "chance", "silent", "spread_video", "spread_audio")
        change = torch._foreach_sub(_weights(module), self._before)
        moved = torch.stack(torch._foreach_norm(change)).norm()
        step = moved / torch.stack(torch._foreach_norm(self._before)).norm()
        # Keep the largest step: relative to weights that a step made huge, later steps are small.
        self._largest_step = torch.maximum(self._largest_step.to(step), step)
        figures = {name: metrics[prefix + name].detach() for name in names}
        return {**figures, "grad_norm": metrics["train/grad_norm/sync_expert"].detach()}

    def _check(self, trainer: L.Trainer, module: SyncExpertModule, num_windows: int) -> None:
        means = {
            name: float(torch.stack([one[name].float().cpu() for one in self._measured]).mean())
            for name in self._measured[0]
        }
        loss, chance = means["loss"], means["chance"]
        if loss < self.margin * chance:
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        evidence = Evidence(
            num_windows=num_windows,
            step_size=float(self._largest_step),
            offsets=corpus_offsets(datamodule, self.num_clips),
            **means,
        )
        logger.warning(
            "the sync expert is at chance after %d iterations (loss %.2f, chance %.2f): %s",
            *(module.iteration, loss, chance, diagnose(evidence)),
        )


def _weights(module: SyncExpertModule) -> list[Tensor]:
    """Return the weights of the expert; if they are sharded, the part of this process."""
    weights = [p.detach() for p in module.expert.parameters()]
    return [w.to_local() if isinstance(w, DTensor) else w for w in weights]


def corpus_offsets(datamodule: LipSyncDataModule, num_clips: int) -> list[int]:
    """Return the audio delays in frames of clips that are spread over the split "train".

    The result is empty if a clip cannot be read, because the diagnosis must not end the run.
    """
    folder = datamodule.corpus_dir
    open_clip = datamodule.open_clip or (lambda path: ClipFile(folder / path))
    manifest = Manifest.load(folder)
    clips = manifest.split("train")
    indices = np.linspace(0, len(clips) - 1, min(num_clips, len(clips))).round().astype(int)
    try:
        files = [open_clip(clips[index].path) for index in indices]
        found = [lip_offset(f.tensor("mouth_opening"), f.mel(), manifest.spec) for f in files]
    except CorpusError:
        return []
    return [offset for offset in found if offset is not None]
