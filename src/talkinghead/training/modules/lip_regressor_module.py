"""Training of the lip regressor that the landmark loss uses.

Shape suffixes: B clips, T frames, P points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from talkinghead.models.checkpoint import LIP_REGRESSOR
from talkinghead.training.modules.single_network import SingleNetworkModule, validation_prefix
from talkinghead.types import AVSpec
from talkinghead.value_rules import PositiveInt


class LipRegressorModule(SingleNetworkModule):
    """LightningModule that trains a `LipRegressor` on the detected lip landmarks of a corpus.

    The augmentation must not rotate, scale, warp or mirror the images, because the landmarks are
    not transformed with them.

    Args:
        av: The AVSpec, or its fields.
        lip_regressor: Arguments of `LipRegressor`.
        optimizer: Fields of `OptimizerConfig`.
        max_iterations: Number of iterations after which training ends.
        **options: Other arguments of `SingleNetworkModule`.
    """

    kind = LIP_REGRESSOR

    def __init__(
        self,
        av: AVSpec | Mapping[str, Any],
        lip_regressor: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        max_iterations: PositiveInt = 400,
        **options: Any,
    ) -> None:
        super().__init__(av, optimizer, max_iterations=max_iterations, **options)
        self.add_network(lip_regressor)

    @property
    def window(self) -> dict[str, Any]:
        """Arguments for the data module: mouth images without audio context."""
        return {"context_frames": 0, "lookahead_frames": 0, "mouths_only": True}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.apply_learning_rate()
        return self.finish_iteration("train/lips/distance_px", self._distance_px(batch), batch)

    def validation_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        name, size = f"{validation_prefix(self, dataloader_idx)}/loss", len(batch["mouths"])
        self.log(name, self._distance_px(batch), batch_size=size, add_dataloader_idx=False)

    def _distance_px(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean distance to the known landmarks, in pixels of the canonical face."""
        box = self.spec.mouth_box
        corner = batch["lip_points"].new_tensor([box.x0, box.y0])
        predicted = self.network(batch["mouths"].flatten(0, 1)) * box.width + corner
        target = batch["lip_points"].flatten(0, 1)
        known = torch.isfinite(target).all(dim=-1)
        difference = torch.where(known[..., None], predicted - torch.nan_to_num(target), 0.0)
        # The constant keeps the gradient of the square root finite.
        distance = difference.square().sum(-1).add(1e-6).sqrt()
        return (distance * known).sum() / known.sum().clamp_min(1)
