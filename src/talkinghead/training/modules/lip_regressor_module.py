"""Training the lip regressor, through which the landmark loss sees.

Shape suffixes: B clips, T frames, P points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from talkinghead.models.checkpoint import LIPS, SCHEMA_VERSION, build
from talkinghead.models.lip_regressor import LipRegressor
from talkinghead.training.optim import OptimizerConfig, clip_gradients, require_finite
from talkinghead.types import AVSpec


class LipRegressorModule(L.LightningModule):
    """Fits a `LipRegressor` to the lips that the detector found when the corpus was prepared.

    Pictures must not be turned, scaled, warped or mirrored: their points would not follow.

    Args:
        av: the AVSpec, or its fields.
        lip_regressor: arguments of `LipRegressor`.
        optimizer: fields of `OptimizerConfig`.
        gradient_clip: the highest norm of the gradients; 0 for none.
        max_iterations: where training ends.
        license, trained_on: written into the checkpoint.
    """

    def __init__(
        self,
        av: AVSpec | Mapping[str, Any],
        lip_regressor: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        gradient_clip: float = 1.0,
        max_iterations: int = 500,
        license: str = "unknown",
        trained_on: str = "unknown",
    ) -> None:
        super().__init__()
        self.spec = av if isinstance(av, AVSpec) else AVSpec.from_dict(av)
        self.arguments = dict(lip_regressor)
        self.lip_regressor = cast(LipRegressor, build(LIPS, self.arguments, self.spec))
        self.optimizer_config = OptimizerConfig(**optimizer)
        self.gradient_clip, self.max_iterations = gradient_clip, max_iterations
        self.meta = {"license": license, "trained_on": trained_on}
        self.iteration = 0

    @property
    def window(self) -> dict[str, Any]:
        """What the datamodule must give: mouths alone."""
        return {"context_frames": 0, "lookahead_frames": 0, "mouths_only": True}

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer_config.build(self.lip_regressor.parameters())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        lr = self.optimizer_config.apply(self.optimizers().optimizer, self.iteration)  # type: ignore[union-attr]
        distance = self._distance_px(batch)
        require_finite(distance, "train/lips/distance_px", self.iteration, batch)
        self.log("train/lips/distance_px", distance, prog_bar=True)
        self.log("train/lr/lip_regressor", lr)
        self.iteration += 1
        self.trainer.should_stop = self.trainer.should_stop or self.iteration >= self.max_iterations
        return distance

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.log("train/grad_norm/lip_regressor", clip_gradients(optimizer, self.gradient_clip))

    def validation_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        split = self.trainer.datamodule.val_splits[dataloader_idx]  # type: ignore[attr-defined]
        name = "val/loss" if dataloader_idx == 0 else f"val_{split}/loss"
        size = len(batch["mouths"])
        self.log(name, self._distance_px(batch), batch_size=size, add_dataloader_idx=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"schema_version": SCHEMA_VERSION, LIPS: self.arguments}
        checkpoint |= {"av": self.spec.to_dict(), "iteration": self.iteration, **self.meta}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.iteration = checkpoint["iteration"]

    def _distance_px(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean distance to the known points, in pixels of the canonical face."""
        box = self.spec.mouth_box
        corner = batch["lip_points"].new_tensor([box.x0, box.y0])
        found = self.lip_regressor(batch["mouths"].flatten(0, 1)) * box.width + corner
        wanted = batch["lip_points"].flatten(0, 1)
        known = torch.isfinite(wanted).all(dim=-1)
        difference = torch.where(known[..., None], found - torch.nan_to_num(wanted), 0.0)
        # The floor keeps the root's gradient finite.
        distance = difference.square().sum(-1).add(1e-6).sqrt()
        return (distance * known).sum() / known.sum().clamp_min(1)
