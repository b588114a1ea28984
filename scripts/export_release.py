"""A training checkpoint to the half-precision file that ships with the package.

python scripts/export_release.py outputs/train/compact_grid/.../checkpoints/last.ckpt
python scripts/export_release.py last.ckpt --kind sync_expert --output expert.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from talkinghead.models.checkpoint import (
    EXPERT,
    GENERATOR,
    LIPS,
    default_checkpoint,
    load_expert,
    load_generator,
    load_lips,
    save_release,
)


def main() -> None:
    """Drops everything but the network (its moving average) and what describes it."""
    parser = argparse.ArgumentParser(description="Export release weights.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--kind", choices=[GENERATOR, EXPERT, LIPS], default=GENERATOR)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    load = {GENERATOR: load_generator, EXPERT: load_expert, LIPS: load_lips}[options.kind]
    loaded = load(options.checkpoint)
    keys = ("av", "license", "trained_on", "iteration", options.kind)
    output = options.output or default_checkpoint(options.kind)
    save_release(output, options.kind, loaded.model, {key: loaded.meta[key] for key in keys})
    print(
        f"{output}: {output.stat().st_size / 2**20:.1f} MiB, iteration {loaded.meta['iteration']}"
    )


if __name__ == "__main__":
    main()
