"""Training with two CPU processes on gloo, compared with one process and a double batch."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.tiny_training import EXPERT, OPTIMIZER, SMALL_RUN, SPEC, TRAINER, make_module
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning_utilities.core.apply_func import apply_to_collection

from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.training.distributed import ShardedStrategy, full_tensor
from talkinghead.training.modules.lipsync_gan import LipSyncGANModule
from talkinghead.training.modules.sync_expert_module import SyncExpertModule
from talkinghead.training.training_run import build_trainer, train

ITERATIONS = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(path, SPEC, num_speakers=2, clips_per_speaker=4, seconds=1.6)
    return path


def make_gan() -> LipSyncGANModule:
    weights = {"l1": 1, "gradient": 0.5, "adversarial": 0.1, "feature_matching": 0.1, "sync": 0.3}
    options = {"sync_discriminator": "joint", "sync_arguments": EXPERT}
    return make_module(loss={"weights": weights}, max_iterations=ITERATIONS, **options)


def make_expert() -> SyncExpertModule:
    return SyncExpertModule(SPEC, EXPERT, OPTIMIZER, max_iterations=ITERATIONS)


class Recorder(Callback):
    """A callback that records the mean losses of all processes and the norms of the weights."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        losses = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
        names = [k for k in sorted(losses) if not k.startswith(("train/lr", "train/weight"))]
        row = {k: float(trainer.strategy.reduce(losses[k].clone())) for k in names}
        for name, network in pl_module.named_children():
            weights = [full_tensor(p.detach()) for p in network.parameters()]
            row[name] = sum(float(w.double().square().sum()) for w in weights)
        self.rows.append(row)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(self.rows))


class DoubleData(LipSyncDataModule):
    """Data in double precision, because Adam amplifies rounding errors of single precision."""

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        finished = super().on_after_batch_transfer(batch, dataloader_idx)
        return apply_to_collection(
            finished, torch.Tensor, lambda t: t.double() if t.is_floating_point() else t
        )


class ForkedLauncher(_MultiProcessingLauncher):
    """A launcher that forks processes and does not collect their sharded weights."""

    def _recover_results_in_main_process(self, *args: Any) -> None:
        pass


class ForkedShardedStrategy(ShardedStrategy):
    def _configure_launcher(self) -> None:
        self._launcher = ForkedLauncher(self, start_method="fork")


def run(module: Any, corpus: Path, path: Path, batch_size: int, **trainer: Any) -> list[Any]:
    # Free the FFmpeg filters of earlier tests before forking: they wait for their threads, which a
    # forked process does not have.
    gc.collect()
    data = DoubleData(
        corpus,
        SPEC,
        batch_size=batch_size,
        num_workers=0,
        num_frames=10 if isinstance(module, SyncExpertModule) else 5,
        iterations_per_epoch=2,
        val_windows=2,
        # The rounding of augmentation depends on the batch size.
        augmentation=None,
        **module.window,
    )
    train(module.double(), data, build_trainer({**TRAINER, **trainer}, [], [Recorder(path)]))
    return json.loads(path.read_text())


STRATEGIES = {"ddp": "ddp_fork_find_unused_parameters_true", "fsdp": ForkedShardedStrategy}


@pytest.mark.parametrize(
    ("make", "strategy"),
    [
        (make_expert, "ddp"),
        (make_expert, "fsdp"),
        *(pytest.param(make_gan, kind, marks=pytest.mark.slow) for kind in ("ddp", "fsdp")),
    ],
)
def test_two_processes_equal_one_process_with_double_batch(
    make: Any, strategy: str, corpus: Path, tmp_path: Path
) -> None:
    kind = STRATEGIES[strategy]
    torch.manual_seed(0)
    chosen = kind if isinstance(kind, str) else kind()
    two = run(make(), corpus, tmp_path / "two", 2, strategy=chosen, devices=2)
    torch.manual_seed(0)
    one = run(make(), corpus, tmp_path / "one", 4, devices=1)
    assert len(one) == len(two) == ITERATIONS
    assert one[0] != one[1]
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=5e-4)


TINY = [
    *SMALL_RUN,
    *("data.seconds=1.6", "model.max_iterations=2", "trainer.devices=2", "callbacks.preview=null"),
]


def talkinghead(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "talkinghead", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_runs_of_a_sweep_can_use_two_processes(tmp_path: Path) -> None:
    folder = f"hydra.sweep.dir={tmp_path}/my sweep"
    done = talkinghead("train", "-m", "experiment=smoke", "trainer=ddp", *TINY, "seed=1,2", folder)
    assert done.returncode == 0, done.stderr
    runs = [tmp_path / "my sweep" / number for number in "01"]
    losses = [json.loads((run / "metrics.json").read_text())["val/loss"] for run in runs]
    assert losses[0] != losses[1]
    for folder_ in runs:
        saved = torch.load(folder_ / "checkpoints" / "last.ckpt", weights_only=True)
        assert saved["iteration"] == 2
    # The second process of each run leaves no files.
    names = {path.name for path in (tmp_path / "my sweep").iterdir()}
    assert names == {"0", "1", "sweep.csv", "multirun.yaml"}


@pytest.mark.slow
def test_fsdp_trainer_trains(tmp_path: Path) -> None:
    run_dir = f"hydra.run.dir={tmp_path}"
    done = talkinghead("train", "experiment=smoke_expert", "trainer=fsdp", *TINY, run_dir)
    assert done.returncode == 0, done.stderr
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["iteration"] == 2
