"""Benchmark training variants: windows per second, waiting time for batches, peak memory.

python scripts/bench_training.py [--models compact base] [--corpus corpora/grid] [experiment=...]

A variant is one choice or several choices joined by +, such as fused+thp; "plain" has no choice.
Real training steps are timed (loader, augmentation, losses, packaged sync expert), with a new
process for each measurement. All variants run once in each round, so that other load affects all
of them.
Further arguments are overrides of conf/train.yaml for every variant.

- channels_last, checkpoint_activations, compile: see `SpeedOptions`
- bf16: trainer.precision=bf16-mixed
- accumulate: two batches of half the size per step
- fused: AdamW in one kernel, the default of training if the device supports it
- malloc: glibc keeps freed memory for the next step, instead of mapping large tensors anew
- thp: torch requests pages of 2 MiB, which are cleared faster; the operating system must allow
  them (/sys/kernel/mm/transparent_hugepage/enabled)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback

from talkinghead.paths import conf_dir
from talkinghead.training.callbacks.monitors import peak_memory_mib
from talkinghead.training.training_run import build_trainer, train

SPEED = ("channels_last", "checkpoint_activations", "compile")
ENVIRONMENTS = {
    "malloc": {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)},
    "thp": {"THP_MEM_ALLOC_ENABLE": "1"},
}
CHOICES = (*SPEED, "bf16", "accumulate", "fused", *ENVIRONMENTS)


@dataclass(frozen=True)
class Job:
    """Configuration of one run of a variant, and the environment variables of its process.

    `accumulate` is the number of batches per step; `warmup` and `steps` count steps.
    """

    overrides: list[str]
    accumulate: int
    fused: bool
    warmup: int
    steps: int
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Duration and batch waiting time of each step in seconds, and the peak memory."""

    step_s: list[float]
    wait_s: list[float]
    memory_mib: float


class StepTimer(Callback):
    """A callback that times batches from the end of one batch to the end of the next."""

    def __init__(self, fused: bool) -> None:
        self.fused = fused
        self.batch_s: list[float] = []
        self.wait_s: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start timing, and without `fused` reset the optimizers to the default of torch."""
        for optimizer in () if self.fused else trainer.optimizers:
            for group in optimizer.param_groups:
                group["fused"] = None
        self._ended_s = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """Record the time of waiting for the batch."""
        self.wait_s.append(time.perf_counter() - self._ended_s)

    def on_train_batch_end(self, *_: Any) -> None:
        """Record the duration of the batch."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now_s = time.perf_counter()
        self.batch_s.append(now_s - self._ended_s)
        self._ended_s = now_s


def measure(job: Job) -> Timing:
    """Time some training steps in this process."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", job.overrides)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    module = instantiate(cfg.model, _convert_="all")
    datamodule = instantiate(cfg.data, **module.window, _convert_="all")
    timer = StepTimer(job.fused)
    quiet = {"limit_val_batches": 0, "enable_progress_bar": False}
    trainer = build_trainer({**instantiate(cfg.trainer, _convert_="all"), **quiet}, [], [timer])
    train(module, datamodule, trainer)
    step_s, wait_s = (
        np.reshape(seconds, (-1, job.accumulate)).sum(axis=1)[job.warmup :].tolist()
        for seconds in (timer.batch_s, timer.wait_s)
    )
    return Timing(step_s, wait_s, peak_memory_mib(trainer.strategy.root_device))


def make_job(variant: str, model: str, args: argparse.Namespace, folder: str) -> Job:
    """Return the job that measures a variant.

    Raises:
        ValueError: a choice is unknown.
    """
    choices = set(variant.split("+")) - {"plain"}
    if unknown := sorted(choices - set(CHOICES)):
        raise ValueError(f"unknown choice {unknown[0]}: combine {', '.join(CHOICES)} with +")
    accumulate = 2 if "accumulate" in choices else 1
    num_batches = (args.warmup + args.steps) * accumulate
    data = [f"data.corpus_dir={args.corpus}"]
    if args.corpus is None:
        data = ["data=synthetic", f"data.corpus_dir={folder}", "data.clips_per_speaker=8"]
    overrides = [
        f"model={model}",
        *(f"model.speed.{name}={str(name in choices).lower()}" for name in SPEED),
        f"model.accumulate={accumulate}",
        f"model.max_iterations={num_batches}",
        "model.sync_expert=default",
        *(["trainer.precision=bf16-mixed"] if "bf16" in choices else []),
        *data,
        f"data.iterations_per_epoch={num_batches}",
        f"data.batch_size={args.batch_size // accumulate}",
        f"data.num_workers={args.workers}",
        *args.overrides,
    ]
    settings = [ENVIRONMENTS[choice] for choice in choices & set(ENVIRONMENTS)]
    environment = {name: value for entry in settings for name, value in entry.items()}
    return Job(overrides, accumulate, "fused" in choices, args.warmup, args.steps, environment)


def run(job: Job) -> Timing | str:
    """Measure a job in a new process; return the last error line if the process fails."""
    command = [sys.executable, __file__, "--worker", json.dumps(asdict(job))]
    environment = {**os.environ, **job.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Timing(**json.loads(done.stdout.splitlines()[-1]))
    errors = [line.strip() for line in done.stderr.splitlines() if "Error" in line]
    return errors[-1] if errors else f"ended with status {done.returncode}"


def table(results: Mapping[tuple[str, str], Sequence[Timing | str]], batch_size: int) -> list[str]:
    """Return a Markdown table of medians, with ratios to the first variant of each model."""
    lines = [
        "| model | variant | windows/s | relative to the first | waiting | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    firsts: dict[str, np.ndarray] = {}
    for (model, variant), rounds in results.items():
        if failures := [entry for entry in rounds if isinstance(entry, str)]:
            lines.append(f"| {model} | {variant} | failed: {failures[0]} | | | |")
            continue
        timings = [entry for entry in rounds if isinstance(entry, Timing)]
        rates = batch_size / np.array([np.median(t.step_s) for t in timings])
        first = firsts.setdefault(model, rates)
        steps = np.concatenate([t.step_s for t in timings])
        waits = np.concatenate([t.wait_s for t in timings])
        lines.append(
            f"| {model} | {variant} | {batch_size / np.median(steps):.2f} "
            f"({rates.min():.2f} to {rates.max():.2f}) | {np.median(rates / first):.2f} | "
            f"{np.median(waits / steps):.1%} | {max(t.memory_mib for t in timings):.0f} |"
        )
    return lines


def main() -> None:
    """Run all rounds of measurements and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of conf/train.yaml")
    parser.add_argument("--models", nargs="+", default=["compact", "base"])
    parser.add_argument("--variants", nargs="+", default=["plain", *CHOICES, "fused+thp"])
    parser.add_argument("--corpus", help="a prepared corpus; drawn faces if not given")
    parser.add_argument("--batch-size", type=int, default=12, help="windows per step, even")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps at the start")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(asdict(measure(Job(**json.loads(args.worker))))))
        return
    if args.batch_size % 2:
        parser.error(f"--batch-size must be even, as accumulate halves it; got {args.batch_size}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            jobs = {
                (m, v): make_job(v, m, args, folder) for m in args.models for v in args.variants
            }
        except ValueError as error:
            parser.error(str(error))
        results: dict[tuple[str, str], list[Timing | str]] = {key: [] for key in jobs}
        for number in range(1, args.rounds + 1):
            for (model, variant), job in jobs.items():
                print(f"round {number} of {args.rounds}: {model}, {variant}", file=sys.stderr)
                if not any(isinstance(entry, str) for entry in results[model, variant]):
                    results[model, variant].append(run(job))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, {torch.get_num_threads()} threads, {args.batch_size} windows a step")
    print("\n".join(table(results, args.batch_size)))


if __name__ == "__main__":
    main()
