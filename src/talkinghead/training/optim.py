"""Learning-rate schedule, gradient clipping, weight averaging and checks of an iteration."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from talkinghead.errors import TalkingHeadError
from talkinghead.training.distributed import full_tensor
from talkinghead.value_rules import NonNegativeFloat, NonNegativeInt, PositiveFloat, UnitFloat


@dataclass(frozen=True)
class OptimizerConfig:
    """Configuration of AdamW with linear warm-up and cosine decay of the learning rate.

    The schedule counts the iterations of the LightningModule.

    Attributes:
        lr: Maximum learning rate.
        betas: Coefficients of the moving averages of Adam; a first value of 0.5 is common in GANs
            (Radford et al., 2015, arXiv:1511.06434).
        weight_decay: Decoupled weight decay.
        warmup_iterations: Number of iterations in which the learning rate rises from 0 to `lr`.
        decay_iterations: Iteration at which the cosine decay ends; 0 for no decay.
        final_lr: Learning rate at the end of the decay, as a fraction of `lr`.
    """

    lr: PositiveFloat = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: NonNegativeFloat = 0.01
    warmup_iterations: NonNegativeInt = 100
    decay_iterations: NonNegativeInt = 0
    final_lr: UnitFloat = 0.1

    def build(self, parameters: Iterable[nn.Parameter], fused: bool = False) -> Optimizer:
        """Build the optimizer; `fused` selects the implementation with a single kernel."""
        betas, decay = (self.betas[0], self.betas[1]), self.weight_decay
        return AdamW(parameters, lr=self.lr, betas=betas, weight_decay=decay, fused=fused)

    def lr_at(self, iteration: int) -> float:
        """Return the learning rate of an iteration, counted from 0."""
        if iteration < self.warmup_iterations:
            return self.lr * (iteration + 1) / self.warmup_iterations
        if not self.decay_iterations:
            return self.lr
        span = max(1, self.decay_iterations - self.warmup_iterations)
        progress = min(1.0, (iteration - self.warmup_iterations) / span)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.lr * (self.final_lr + (1 - self.final_lr) * cosine)

    def apply(self, optimizer: Optimizer, iteration: int) -> float:
        """Set the learning rate of an optimizer for an iteration, and return that rate."""
        lr = self.lr_at(iteration)
        for group in optimizer.param_groups:
            group["lr"] = lr
        return lr


def clip_gradients(optimizer: Optimizer, max_norm: float) -> Tensor:
    """Clip the gradient norm of an optimizer, and return the norm before clipping.

    Call this after the gradients are unscaled and before the step. Lightning does not support
    `gradient_clip_val` with manual optimization.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else math.inf)
    return full_tensor(norm)


class MovingAverage(nn.Module):
    """Exponential moving average of the weights of a network, for validation and inference.

    In the first iterations the decay is lower, so that the initial weights have little influence.
    The network is copied; `name`, that of the attribute, is part of the keys of the state dict.

    Paper: Yazici et al., "The unusual effectiveness of averaging in GAN training", 2018,
        arXiv:1806.04498.
    """

    def __init__(self, name: str, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.name, self.decay = name, decay
        self.add_module(name, copy.deepcopy(network).requires_grad_(False).eval())

    @property
    def network(self) -> nn.Module:
        """The network with the averaged weights."""
        return self.get_submodule(self.name)

    def train(self, mode: bool = True) -> MovingAverage:
        """Stay in evaluation mode regardless of `mode`."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module, iteration: int) -> None:
        """Update the average with the weights of `network` after iteration `iteration` (from 0)."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        averaged: list[Tensor] = list(self.network.parameters())
        current: list[Tensor] = [full_tensor(p.detach()) for p in network.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for buffer, source in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(source)


def seed_iteration(seed: int, iteration: int, rank: int) -> None:
    """Seed PyTorch's random numbers for an iteration of one process."""
    (state,) = np.random.SeedSequence((seed, iteration, rank)).generate_state(1)
    torch.manual_seed(int(state))


def require_finite(loss: Tensor, name: str, iteration: int, batch: Mapping[str, Any]) -> None:
    """Raise a `TalkingHeadError` if the loss is not finite, before the weights are changed."""
    if torch.isfinite(loss):
        return
    starts = zip(batch["clip"], batch["start"].tolist(), strict=True)
    clips = ", ".join(f"{clip} from frame {start}" for clip, start in starts)
    raise TalkingHeadError(
        f"{name} is {loss.item()} in iteration {iteration}, with the clips {clips}: check these "
        "clips, or lower the learning rate; the last checkpoint is unchanged"
    )


def require_finite_weights(network: nn.Module, iteration: int) -> None:
    """Raise a `TalkingHeadError` if weights are not finite, before a checkpoint is replaced.

    Weights need this check too, because a finite loss can have a gradient that is not finite.
    """
    for name, parameter in network.named_parameters():
        if not torch.isfinite(full_tensor(parameter.detach())).all():
            raise TalkingHeadError(
                f"the weights are not finite after iteration {iteration} ({name}): lower the "
                "learning rate and resume with ckpt_path=last; the last checkpoint is unchanged"
            )
