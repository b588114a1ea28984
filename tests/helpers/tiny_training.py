"""Small networks, data and trainers for tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.training.modules.lipsync_gan import LipSyncGANModule
from talkinghead.training.training_run import build_trainer, train
from talkinghead.types import AVSpec

SPEC = AVSpec(face_size=160, mouth_size=48, mouth_x=40, mouth_y=72, mouth_side=80)
GENERATOR: dict[str, Any] = {
    "dim": 32,
    "audio_channels": [4, 8, 8, 16],
    "face_encoder": "small",
    "num_layers": 1,
    "num_heads": 2,
    "past_frames": 3,
    "decoder_channels": [24, 16, 16, 8],
    "context_channels": [4, 8, 8, 8],
}
EXPERT: dict[str, Any] = {
    "dim": 16,
    "image_size": 32,
    "image_channels": [4, 8, 8],
    "audio_channels": [4, 4, 8, 8],
    "audio_dim": 16,
}
OPTIMIZER = {"lr": 2e-3, "warmup_iterations": 2}
TRAINER = {
    "accelerator": "cpu",
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


def make_module(**options: Any) -> LipSyncGANModule:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "av": SPEC.to_dict(),
        "generator": GENERATOR,
        "discriminator": {"channels": [4, 8, 8, 8]},
        "loss": {"weights": {"l1": 1.0, "gradient": 0.5}},
        "optimizer": OPTIMIZER,
        "discriminator_optimizer": OPTIMIZER,
        "balance_every": 0,
        "max_iterations": 4,
    }
    return LipSyncGANModule(**{**defaults, **options})


def make_data(corpus: Path, module: Any, **options: Any) -> LipSyncDataModule:
    defaults: dict[str, Any] = {
        "av": SPEC,
        "batch_size": 2,
        "num_workers": 0,
        "iterations_per_epoch": 2,
        "val_windows": 2,
        "augmentation": {},
        **module.window,
    }
    return LipSyncDataModule(corpus, **{**defaults, **options})


def fit(module: Any, data: Any, *callbacks: Callback, ckpt_path: str | None = None) -> L.Trainer:
    trainer = build_trainer(TRAINER, [], callbacks)
    train(module, data, trainer, ckpt_path)
    return trainer
