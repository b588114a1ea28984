"""Sharding of networks among processes with FSDP2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2 strategy over all processes of all machines, with unsharded checkpoints.

    Lightning's FSDP1 strategy does not support manual optimization
    (https://github.com/Lightning-AI/pytorch-lightning/issues/19685).

    Args:
        **options: arguments of `ModelParallelStrategy`.

    Paper: Zhao et al., "PyTorch FSDP", 2023, arXiv:2304.11277.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard_networks(
    module: L.LightningModule, large: Sequence[nn.Module], small: Sequence[nn.Module | None]
) -> None:
    """Shard networks among the processes under `ShardedStrategy`, else do nothing.

    Call this in `configure_model`, which Lightning runs before it builds the optimizers.

    Args:
        module: owner of the networks.
        large: networks to shard. Only their `forward` may be called.
        small: networks that are replicated; their gradients are averaged.
    """
    if module.device_mesh is None:
        return
    for network in large:
        fully_shard(network, mesh=module.device_mesh["data_parallel"])
    for parameter in (p for network in small if network for p in network.parameters()):
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_average_gradient)


def full_tensor(values: Tensor) -> Tensor:
    """Return a possibly sharded tensor unsharded; every process must call this."""
    return values.full_tensor() if isinstance(values, DTensor) else values


def _average_gradient(parameter: Tensor) -> None:
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad)
    parameter.grad /= dist.get_world_size()
