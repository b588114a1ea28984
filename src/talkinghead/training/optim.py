"""Schedules, gradient clipping and the moving average that both modules share."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from talkinghead.errors import TalkingHeadError
from talkinghead.training.fsdp import whole


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine decay, counted in iterations of ours.

    Attributes:
        lr: the highest learning rate.
        betas: Adam's; GANs like 0.5 for the first (Radford et al., 2015, arXiv:1511.06434).
        weight_decay: decoupled.
        warmup_iterations: from 0 to `lr`.
        decay_iterations: where the cosine ends; 0 keeps `lr`.
        final_lr: what the cosine ends at, as a fraction of `lr`.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup_iterations: int = 200
    decay_iterations: int = 0
    final_lr: float = 0.1

    def build(self, parameters: Iterable[nn.Parameter], fused: bool = False) -> Optimizer:
        """The optimizer; `fused` takes all its arithmetic into one kernel."""
        return AdamW(
            parameters,
            lr=self.lr,
            betas=(self.betas[0], self.betas[1]),
            weight_decay=self.weight_decay,
            fused=fused,
        )

    def lr_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        if iteration < self.warmup_iterations:
            return self.lr * (iteration + 1) / self.warmup_iterations
        if not self.decay_iterations:
            return self.lr
        span = max(1, self.decay_iterations - self.warmup_iterations)
        progress = min(1.0, (iteration - self.warmup_iterations) / span)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.lr * (self.final_lr + (1 - self.final_lr) * cosine)

    def apply(self, optimizer: Optimizer, iteration: int) -> float:
        """Sets the optimizer's learning rate for an iteration and returns it."""
        lr = self.lr_at(iteration)
        for group in optimizer.param_groups:
            group["lr"] = lr
        return lr


def can_fuse(precision: str) -> bool:
    """Whether AdamW may be fused at one of Lightning's precisions.

    With scaled losses a fused optimizer unscales inside its step, after the gradients are clipped:
    they would be clipped scaled.
    """
    return precision != "16-mixed"


def clip_gradients(optimizer: Optimizer, max_norm: float) -> Tensor:
    """Clips the norm of all of an optimizer's gradients and returns what it was.

    Called between unscaling and the step: Lightning refuses `gradient_clip_val` with manual
        optimisation.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else math.inf)
    return whole(norm)


class MovingAverage(nn.Module):
    """An exponential moving average of a network's weights.

    What is validated, exported and shipped.

    The decay rises to its value as 1 - 1 / n does, so that the beginning is soon forgotten.

    Paper: Yazici et al., "The unusual effectiveness of averaging in GAN training", 2018,
        arXiv:1806.04498.
    """

    def __init__(self, name: str, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.name, self.decay = name, decay
        self.add_module(name, copy.deepcopy(network).requires_grad_(False).eval())

    @property
    def network(self) -> nn.Module:
        return self.get_submodule(self.name)

    def train(self, mode: bool = True) -> MovingAverage:
        """It is always in evaluation mode, whatever Lightning sets the rest to."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module, iteration: int) -> None:
        """Moves towards `network` after the step of `iteration`, counted from 0."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        mine: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = [whole(p.detach()) for p in network.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for buffer, source in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(source)


def require_finite(loss: Tensor, name: str, iteration: int, batch: Mapping[str, Any]) -> None:
    """Stops a run whose loss is no number, before it spoils the weights.

    Raises:
        TalkingHeadError: names the loss, the iteration, and the clips of its batch with their first
            frames.
    """
    if torch.isfinite(loss):
        return
    starts = zip(batch["clip"], batch["start"].tolist(), strict=True)
    clips = ", ".join(f"{clip} from frame {start}" for clip, start in starts)
    raise TalkingHeadError(
        f"{name} is {loss.item()} in iteration {iteration}, with the clips {clips}: look at these, "
        "or lower the learning rate; the last checkpoint is kept as it was"
    )


def require_finite_weights(network: nn.Module, iteration: int) -> None:
    """Stops a run whose weights are no numbers, before a checkpoint of them replaces a good one.

    A loss that is a number can have a gradient that is none.

    Raises:
        TalkingHeadError: names a weight and the iteration.
    """
    for name, parameter in network.named_parameters():
        if not torch.isfinite(whole(parameter.detach())).all():
            raise TalkingHeadError(
                f"the weights are no numbers after iteration {iteration} ({name}): lower the "
                "learning rate and resume with ckpt_path=last; the last checkpoint is kept as it "
                "was"
            )
