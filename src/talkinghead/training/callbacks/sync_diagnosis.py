"""Why a sync expert's loss stays at chance: the likely cause, from what is measured."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.sync.offset import lip_offset
from talkinghead.training.modules.sync_expert_module import SyncExpertModule

logger = logging.getLogger(__name__)

_MIN_WINDOWS = 64
_MAX_SILENT = 0.5
_MAX_STEP = 0.2  # A healthy step moves the weights by a hundredth or less.
_MAX_EXCESS = 3.0  # Nats above chance: an expert that guesses with confidence.
_MIN_SPREAD = 1e-4
_MAX_OFFSET = 2
_MIN_IN_STEP = 0.5


@dataclass(frozen=True)
class Evidence:
    """What was measured over the last iterations, and of the corpus.

    Attributes:
        loss, chance: means; `chance` is the loss of an expert that cannot tell windows apart.
        num_windows: windows of a batch.
        silent: share of them without speech.
        spread_video, spread_audio: variance of the embeddings over a batch, in [0, 1].
        step_size: how far the largest step so far moved the weights, as a fraction of their norm.
        grad_norm: of the gradients, before they are clipped.
        offsets: for some clips, the frames by which their sound comes late, by the lips' motion.
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
    """The likeliest cause of a loss at chance, and what to change, in one line.

    What would bring about other signs by itself comes first: a wild step also kills embeddings, and
    of silent clips nothing else can be told.
    """
    e = evidence
    if e.silent > _MAX_SILENT:
        return (
            f"{e.silent:.0%} of the windows are silent: take clips in which somebody speaks, raise "
            "the level of their sound, or cut the pauses"
        )
    slower = f"(gradient norm now {e.grad_norm:.2g}): begin again with a tenth of optimizer.lr"
    if e.step_size > _MAX_STEP:
        return (
            f"the learning rate is too high: a step moved the weights by {e.step_size:.0%} of "
            f"their size {slower}"
        )
    for name, spread in (("video", e.spread_video), ("audio", e.spread_audio)):
        if spread < _MIN_SPREAD:
            return (
                f"the {name} embedding is dead: its variance over a batch is {spread:.1g} "
                f"(gradient norm {e.grad_norm:.2g}): begin again from new weights (another seed), "
                "with a lower optimizer.lr"
            )
    if e.loss > e.chance + _MAX_EXCESS:
        return f"the learning rate is too high: the loss jumps far above chance {slower}"
    return _out_of_step(e.offsets) or _too_few(e)


def _out_of_step(offsets: Sequence[int]) -> str | None:
    if not offsets:
        return None
    advice = "prepare the corpus again with sync.checkpoint=default, or mend the videos"
    median = round(float(np.median(offsets)))
    if abs(median) > _MAX_OFFSET:
        return (
            f"the sound is {abs(median)} frames {'late' if median > 0 else 'early'}, by the lips "
            f"of {len(offsets)} clips: {advice}"
        )
    in_step = float(np.mean(np.abs(offsets) <= _MAX_OFFSET))
    if in_step < _MIN_IN_STEP:
        return (
            f"sound and lips are in step in {in_step:.0%} of {len(offsets)} clips alone: {advice}; "
            "is the sound that of the face?"
        )
    return None


def _too_few(e: Evidence) -> str:
    if e.num_windows < _MIN_WINDOWS:
        return (
            f"the batch is too small: {e.num_windows} windows, so that each is told from few "
            f"others: raise data.batch_size or data.num_frames to {_MIN_WINDOWS} windows or more"
        )
    return (
        f"no cause was found in what is measured (steps of at most {e.step_size:.1%} of the "
        f"weights, gradient norm {e.grad_norm:.2g}, {e.silent:.0%} silent, {e.num_windows} "
        "windows): train on, raise optimizer.lr three times, or widen model.sync_expert"
    )


class SyncDiagnosis(Callback):
    """Looks every so many iterations whether a sync expert is still at chance, and says why.

    It warns in one line and lets the run go on; an expert that learns hears nothing from it, nor
    does any other module.

    Args:
        every_n_iterations: how often; the figures are means over the last quarter of them.
        margin: a loss above this share of chance is at chance.
        num_clips: of the split "train", whose offset is measured where the loss is at chance.
    """

    def __init__(
        self, every_n_iterations: int = 200, margin: float = 0.95, num_clips: int = 32
    ) -> None:
        self.every_n_iterations, self.margin = every_n_iterations, margin
        self.num_clips = num_clips
        self._measured: deque[dict[str, Tensor]] = deque(maxlen=max(1, every_n_iterations // 4))
        self._before: list[Tensor] = []
        self._largest_step = torch.zeros(())

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        if isinstance(pl_module, SyncExpertModule):
            self._before = [w.clone() for w in _weights(pl_module)]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not isinstance(pl_module, SyncExpertModule):
            return
        if self._before:  # There is none where gradients are still being accumulated.
            self._measured.append(self._measure(trainer.callback_metrics, pl_module))
            self._before = []
        due = pl_module.iteration % self.every_n_iterations == 0
        if due and self._measured and trainer.is_global_zero:
            num_windows = trainer.world_size * pl_module.num_windows(batch)
            self._look(trainer, pl_module, num_windows)

    def _measure(
        self, metrics: Mapping[str, Tensor], module: SyncExpertModule
    ) -> dict[str, Tensor]:
        """This iteration's figures, as tensors: reading them would wait for the device."""
        prefix = "train/sync_expert/"
        names = ("loss", "chance", "silent", "spread_video", "spread_audio")
        change = torch._foreach_sub(_weights(module), self._before)
        moved = torch.stack(torch._foreach_norm(change)).norm()
        step = moved / torch.stack(torch._foreach_norm(self._before)).norm()
        # Weights that a wild step has made huge are moved little by the next.
        self._largest_step = torch.maximum(self._largest_step.to(step), step)
        figures = {name: metrics[prefix + name].detach() for name in names}
        return {**figures, "grad_norm": metrics["train/grad_norm/sync_expert"].detach()}

    def _look(self, trainer: L.Trainer, module: SyncExpertModule, num_windows: int) -> None:
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
            offsets=corpus_offsets(datamodule.corpus_dir, self.num_clips),
            **means,
        )
        logger.warning(
            "the sync expert is at chance after %d iterations (loss %.2f, chance %.2f): %s",
            module.iteration,
            loss,
            chance,
            diagnose(evidence),
        )


def _weights(module: SyncExpertModule) -> list[Tensor]:
    """The expert's weights, or this process's part of them where they are sharded."""
    weights = [p.detach() for p in module.sync_expert.parameters()]
    return [w.to_local() if isinstance(w, DTensor) else w for w in weights]


def corpus_offsets(corpus_dir: Path, num_clips: int) -> list[int]:
    """By how many frames the sound comes late in clips of the split "train", spread over it."""
    manifest = Manifest.load(corpus_dir)
    clips = manifest.split("train")
    chosen = np.linspace(0, len(clips) - 1, min(num_clips, len(clips))).round().astype(int)
    files = [ClipFile(corpus_dir / clips[index].path) for index in chosen]
    found = [lip_offset(f.tensor("mouth_opening"), f.mel(), manifest.spec) for f in files]
    return [offset for offset in found if offset is not None]
