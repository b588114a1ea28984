"""Convert a training checkpoint to a half-precision release file.

python scripts/export_release.py outputs/train/compact/.../checkpoints/last.ckpt
python scripts/export_release.py last.ckpt --kind sync_expert --output expert.safetensors
python scripts/export_release.py last.ckpt --blend before.safetensors --blend-weight 0.6
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from talkinghead.models.checkpoint import (
    EXPERT,
    GENERATOR,
    LIP_REGRESSOR,
    default_checkpoint,
    load_expert,
    load_generator,
    load_lip_regressor,
    save_release,
)


def main() -> None:
    """Write the averaged weights of a network and their metadata."""
    parser = argparse.ArgumentParser(description="Export release weights.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--kind", choices=[GENERATOR, EXPERT, LIP_REGRESSOR], default=GENERATOR)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--blend", type=Path, help="release of the same network to average with")
    parser.add_argument("--blend-weight", type=float, default=0.5, help="of the checkpoint")
    options = parser.parse_args()
    load = {GENERATOR: load_generator, EXPERT: load_expert, LIP_REGRESSOR: load_lip_regressor}[
        options.kind
    ]
    loaded = load(options.checkpoint)
    if options.blend is not None:
        other = load(options.blend).model.state_dict()
        own = loaded.model.state_dict()
        mixed = {name: torch.lerp(other[name], own[name], options.blend_weight) for name in own}
        loaded.model.load_state_dict(mixed)
    keys = ("av", "license", "trained_on", "iteration", options.kind)
    output = options.output or default_checkpoint(options.kind)
    save_release(output, options.kind, loaded.model, {key: loaded.meta[key] for key in keys})
    print(
        f"{output}: {output.stat().st_size / 2**20:.1f} MiB, iteration {loaded.meta['iteration']}"
    )


if __name__ == "__main__":
    main()
