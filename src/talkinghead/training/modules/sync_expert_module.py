"""Training the sync expert: which speech belongs to which mouth.

Shape suffixes: B clips, S stretch of frames, N windows, T frames of a window, C channels or feature
    rows, K mel frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from talkinghead.errors import UsageError
from talkinghead.losses.sync_loss import cosine_bce, info_nce, silent
from talkinghead.models.checkpoint import EXPERT, SCHEMA_VERSION, build
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.training.distributed import gather
from talkinghead.training.fsdp import shard_networks
from talkinghead.training.optim import OptimizerConfig, clip_gradients, require_finite
from talkinghead.types import AVSpec


class SyncExpertModule(L.LightningModule):
    """Fits a `SyncDiscriminator` to real pairs.

    Each clip of a batch gives a stretch of frames, cut into windows that follow each other: the
    other windows of the same clip, at least a window's length away, are the hard negatives; the
    other clips are the easy ones.

    Args:
        av: the AVSpec, or its fields.
        sync_expert: arguments of `SyncDiscriminator`.
        optimizer: fields of `OptimizerConfig`.
        loss: "info_nce" over the batch, or "bce" on the scaled cosine with one shifted negative for
            each pair.
        gradient_clip: the highest norm of the gradients; 0 for none.
        max_iterations: where training ends.
        license, trained_on: written into the checkpoint.

    Raises:
        UsageError: `loss` is unknown, or (when training begins) a stretch is shorter than a window.
    """

    def __init__(
        self,
        av: AVSpec | Mapping[str, Any],
        sync_expert: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        loss: Literal["info_nce", "bce"] = "info_nce",
        gradient_clip: float = 1.0,
        max_iterations: int = 1000,
        license: str = "unknown",
        trained_on: str = "unknown",
    ) -> None:
        super().__init__()
        if loss not in ("info_nce", "bce"):
            raise UsageError(f"loss={loss}: choose info_nce or bce")
        self.spec = av if isinstance(av, AVSpec) else AVSpec.from_dict(av)
        self.arguments = dict(sync_expert)
        self.sync_expert = cast(SyncDiscriminator, build(EXPERT, self.arguments, self.spec))
        self.optimizer_config = OptimizerConfig(**optimizer)
        self.loss, self.gradient_clip, self.max_iterations = loss, gradient_clip, max_iterations
        self.meta = {"license": license, "trained_on": trained_on}
        self.iteration = 0

    @property
    def window(self) -> dict[str, Any]:
        """What the datamodule must give: windows of the frames alone."""
        prosody = self.sync_expert.audio_encoder.needs_prosody
        window = {"context_frames": 0, "lookahead_frames": 0, "prosody": prosody}
        return {**window, "mouths_only": True}

    def configure_model(self) -> None:
        shard_networks(self, large=[], small=[self.sync_expert])

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer_config.build(self.sync_expert.parameters())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        lr = self.optimizer_config.apply(self.optimizers().optimizer, self.iteration)  # type: ignore[union-attr]
        loss, measured = self._loss(batch)
        require_finite(loss, "train/sync_expert/loss", self.iteration, batch)
        self.log("train/sync_expert/loss", loss, prog_bar=True)
        self.log("train/sync_expert/accuracy", measured.pop("accuracy"), prog_bar=True)
        self.log_dict({f"train/sync_expert/{name}": value for name, value in measured.items()})
        self.log("train/lr/sync_expert", lr)
        self.iteration += 1
        self.trainer.should_stop = self.trainer.should_stop or self.iteration >= self.max_iterations
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.log("train/grad_norm/sync_expert", clip_gradients(optimizer, self.gradient_clip))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        loss, measured = self._loss(batch)
        size, accuracy = len(batch["mouths"]), measured["accuracy"]
        self.log("val/loss", loss, prog_bar=True, batch_size=size)
        self.log("val/sync_expert/accuracy", accuracy, prog_bar=True, batch_size=size)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"schema_version": SCHEMA_VERSION, EXPERT: self.arguments}
        checkpoint |= {"av": self.spec.to_dict(), "iteration": self.iteration, **self.meta}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.iteration = checkpoint["iteration"]

    def num_windows(self, batch: Mapping[str, Tensor]) -> int:
        """How many windows a batch holds.

        Raises:
            UsageError: its stretches are shorter than a window.
        """
        num_clips, num_frames = batch["mouths"].shape[:2]
        if num_frames < self.sync_expert.num_frames:
            raise UsageError(
                f"data.num_frames={num_frames} is shorter than a window of "
                f"model.sync_expert.num_frames={self.sync_expert.num_frames}: give data.num_frames "
                "a multiple of it"
            )
        return num_clips * (num_frames // self.sync_expert.num_frames)

    def _loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and what `SyncDiagnosis` and a reader of the logs want to know beside it."""
        mouths, means, audio = self._windows(batch)
        video_D, audio_D = (gather(e) for e in self.sync_expert(mouths, means, audio))
        scale = self.sync_expert.scale
        is_silent = gather(silent(audio, self.spec.num_mels))
        alike = is_silent[:, None] & is_silent[None, :]
        alike.fill_diagonal_(False)
        measured = _measure(video_D.detach().float(), audio_D.detach().float(), is_silent, alike)
        if self.loss == "info_nce":
            return info_nce(video_D, audio_D, scale, alike), measured
        measured["chance"] = torch.full_like(measured["chance"], math.log(2))
        # Of two windows that are silent alike neither is a fair negative for the other.
        fair = ~(is_silent & is_silent.roll(1, 0))
        pairs = torch.cat([audio_D, audio_D.roll(1, 0)[fair]])
        target = torch.zeros(len(pairs), device=pairs.device)
        target[: len(audio_D)] = 1.0
        return cosine_bce(torch.cat([video_D, video_D[fair]]), pairs, target, scale), measured

    def _windows(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Stretches [B, S] cut into N = B x (S // T) windows of T frames.

        The audio has no context around them.
        """
        num_frames = self.sync_expert.num_frames
        count = self.num_windows(batch) // len(batch["mouths"])
        mouths = batch["mouths"][:, : count * num_frames]
        audio = batch["mel"][:, : count * num_frames]
        return (
            mouths.unflatten(1, (count, num_frames)).flatten(0, 1),
            batch["mean_mouth"].repeat_interleave(count, 0),
            audio.unflatten(1, (count, num_frames)).flatten(0, 1),
        )


def _measure(
    video_D: Tensor, audio_D: Tensor, is_silent: Tensor, alike: Tensor
) -> dict[str, Tensor]:
    """Figures of a batch, scalars.

    `accuracy`: how often the right sound comes first; `chance`: the loss of an expert that cannot
    tell windows apart; `silent`: share of the windows; `spread_video`, `spread_audio`: variance of
    the unit vectors, 0 where all are alike, 1 where they point everywhere.
    """
    found = (video_D @ audio_D.T).masked_fill(alike, -1).argmax(1)
    return {
        "accuracy": (found == torch.arange(len(found), device=found.device)).float().mean(),
        "chance": (len(alike) - alike.sum(1)).float().log().mean(),
        "silent": is_silent.float().mean(),
        "spread_video": (video_D - video_D.mean(0)).square().sum(1).mean(),
        "spread_audio": (audio_D - audio_D.mean(0)).square().sum(1).mean(),
    }
