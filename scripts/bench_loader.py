"""Benchmark the data loader and the augmentation, in windows per second.

python scripts/bench_loader.py CORPUS [--workers 2] [--batches 60] [--batch-size 12]
"""

from __future__ import annotations

import argparse
import time

import torch

from talkinghead.data.augmentation.batch_augmentation import BatchAugmentation
from talkinghead.data.augmentation.finished_batch import finish_batch
from talkinghead.data.data_options import AugmentationOptions
from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.manifest import Manifest


def main() -> None:
    """Time the loader alone, then the augmentation alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=12)
    args = parser.parse_args()
    spec = Manifest.load(args.corpus).spec
    datamodule = LipSyncDataModule(
        args.corpus,
        spec,
        batch_size=args.batch_size,
        num_workers=args.workers,
        iterations_per_epoch=args.batches + 5,
    )
    datamodule.setup("fit")
    loader = iter(datamodule.train_dataloader())
    for _ in range(5):  # Warm-up: start the workers and cache the files.
        batch = next(loader)
    started = time.perf_counter()
    for _ in range(args.batches):
        batch = next(loader)
    seconds = time.perf_counter() - started
    print(
        f"loader, {args.workers} workers: {args.batches * args.batch_size / seconds:.0f} windows/s"
    )
    del loader
    augmentation = BatchAugmentation(spec, AugmentationOptions())
    finish_batch(batch, spec, augmentation)
    started = time.perf_counter()
    for _ in range(10):
        finish_batch(batch, spec, augmentation)
    milliseconds = (time.perf_counter() - started) * 100
    threads = torch.get_num_threads()
    print(f"augmentation, {threads} threads: {milliseconds:.0f} ms for {args.batch_size} windows")


if __name__ == "__main__":
    main()
