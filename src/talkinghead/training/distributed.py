"""Distributed training: start of the processes, communication and sharding (FSDP2)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

_LAUNCHER_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SILENT = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")


def gather(rows: Tensor) -> Tensor:
    """Concatenate the rows [B, ...] of all P processes to [P * B, ...], with gradients.

    A contrastive loss of the result is equal in all processes, and the averaged gradients are those
    of a single process with the whole batch. If gradients are disabled (in validation, where all
    processes use the same windows) or there is only one process, the rows are returned unchanged.
    """
    if not (torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()):
        return rows
    if not rows.is_floating_point():
        return gather(rows.float()).to(rows.dtype)
    gathered: Tensor = _Gather.apply(rows.contiguous())
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # The loss of every process depends on the rows of this process.
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


@contextmanager
def other_processes(run_dir: Path, command: str) -> Iterator[None]:
    """Make Lightning start the other processes of this machine with the configuration of the run.

    Lightning starts them with the command line of this process, which in a sweep is not that of a
    single run. Here they load the configuration that Hydra saved, so that each run of a sweep can
    use several processes. The state of this process is restored afterwards. They run the subcommand
    `command` of `talkinghead`; `run_dir` is the folder of the run.
    """
    hydra_config, main = HydraConfig.instance(), sys.modules["__main__"]
    before = hydra_config.cfg, sys.argv, main.__spec__
    environment = {name: os.environ.get(name) for name in _LAUNCHER_VARIABLES}
    # If the configuration of Hydra were set, Lightning would add overrides to the command line.
    hydra_config.cfg, main.__spec__ = None, find_spec("talkinghead.__main__")
    saved = ["--config-path", str((run_dir / ".hydra").resolve()), "--config-name", "config"]
    sys.argv = [before[1][0], command, *saved, f"hydra.run.dir={run_dir}", *_SILENT]
    try:
        yield
    finally:
        hydra_config.cfg, sys.argv, main.__spec__ = before
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2 strategy for all processes of all machines, with unsharded checkpoints.

    Lightning's FSDP1 strategy does not support manual optimization
    (https://github.com/Lightning-AI/pytorch-lightning/issues/19685).

    Args:
        **options: Arguments of `ModelParallelStrategy`.

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
    """Shard networks among the processes; with other strategies than `ShardedStrategy`, do nothing.

    Call this in `configure_model`, which Lightning runs before it builds the optimizers. Of the
    large networks only `forward` may be called. The small ones are replicated, and their gradients
    are averaged.
    """
    if module.device_mesh is None:
        return
    for network in large:
        fully_shard(network, mesh=module.device_mesh["data_parallel"])
    for parameter in (p for network in small if network for p in network.parameters()):
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_average_gradient)


def full_tensor(values: Tensor) -> Tensor:
    """Return the whole of a tensor that may be sharded; all processes must call this."""
    return values.full_tensor() if isinstance(values, DTensor) else values


def _average_gradient(parameter: Tensor) -> None:
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad)
    parameter.grad /= dist.get_world_size()
