"""Base class of the LightningModules that train a single network with one optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
from torch import Tensor, nn
from torch.optim import Optimizer

from talkinghead.models.checkpoint import SCHEMA_VERSION, build
from talkinghead.training.optim import OptimizerConfig, clip_gradients, require_finite
from talkinghead.types import AVSpec
from talkinghead.value_rules import NonNegativeFloat, PositiveInt


class SingleNetworkModule(L.LightningModule):
    """LightningModule with the optimizer, the iteration count and the checkpoint of one network.

    Args:
        av: The AVSpec, or its fields.
        optimizer: Fields of `OptimizerConfig`.
        gradient_clip: Maximum norm of the gradients; 0 for no limit.
        max_iterations: Number of iterations after which training ends.
        license: License of the weights, written into the checkpoint.
        trained_on: Description of the training data, written into the checkpoint.
    """

    kind: str
    """Kind of the network in the checkpoint, and name of the attribute with the network."""

    def __init__(
        self,
        av: AVSpec | Mapping[str, Any],
        optimizer: Mapping[str, Any],
        gradient_clip: NonNegativeFloat = 1.0,
        max_iterations: PositiveInt = 2000,
        license: str = "unknown",
        trained_on: str = "unknown",
    ) -> None:
        super().__init__()
        self.spec = av if isinstance(av, AVSpec) else AVSpec.from_dict(av)
        self.optimizer_config = OptimizerConfig(**optimizer)
        self.gradient_clip, self.max_iterations = gradient_clip, max_iterations
        self.meta = {"license": license, "trained_on": trained_on}
        self.iteration = 0

    def add_network(self, arguments: Mapping[str, Any]) -> None:
        """Build the network; the constructor of a subclass calls this once."""
        self.arguments = dict(arguments)
        self.add_module(self.kind, build(self.kind, self.arguments, self.spec))

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        return self.get_submodule(self.kind)

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer_config.build(self.network.parameters())

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.log(f"train/grad_norm/{self.kind}", clip_gradients(optimizer, self.gradient_clip))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"schema_version": SCHEMA_VERSION, self.kind: self.arguments}
        checkpoint |= {"av": self.spec.to_dict(), "iteration": self.iteration, **self.meta}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.iteration = checkpoint["iteration"]

    def apply_learning_rate(self) -> None:
        """Set and log the learning rate of this iteration."""
        optimizer = self.optimizers().optimizer  # type: ignore[union-attr]
        lr = self.optimizer_config.apply(optimizer, self.iteration)
        self.log(f"train/lr/{self.kind}", lr)

    def finish_iteration(self, name: str, loss: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Check, log and return the loss; end training after `max_iterations`."""
        require_finite(loss, name, self.iteration, batch)
        self.log(name, loss, prog_bar=True)
        self.iteration += 1
        self.trainer.should_stop = self.trainer.should_stop or self.iteration >= self.max_iterations
        return loss


def validation_prefix(module: L.LightningModule, dataloader_idx: int) -> str:
    """Return the prefix of the metrics of a validation split: "val" for the first one."""
    split = module.trainer.datamodule.val_splits[dataloader_idx]  # type: ignore[attr-defined]
    return "val" if dataloader_idx == 0 else f"val_{split}"
