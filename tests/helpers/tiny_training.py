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
SMALL_RUN = [
    *("data.num_workers=0", "data.iterations_per_epoch=1", "data.val_windows=2"),
    *("data.batch_size=2", "logger=none", "trainer.accelerator=cpu"),
]
"""Overrides of `talkinghead train` for a short run."""


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


class CurveModule(L.LightningModule):
    """A module with one weight and given values of the validation loss.

    Each training batch counts as ten iterations.
    """

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.values, self.iteration, self.max_iterations = values, 0, 10 * len(values)

    def training_step(self, batch: Any) -> Any:
        self.iteration += 10
        return self.weight.sum()

    def validation_step(self, batch: Any) -> None:
        self.log("val/loss", self.values[self.iteration // 10 - 1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


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


def generator_inputs(
    model: Any, batch: int = 2, frames: int = 3, spec: AVSpec = SPEC
) -> tuple[torch.Tensor, ...]:
    """Return random reference faces, lips, masked faces and audio windows for a generator."""
    torch.manual_seed(1)
    size, windows = spec.face_size, model.context_frames + frames + model.lookahead_frames
    return (
        torch.rand(batch, 3, size, size),
        100 + 60 * torch.rand(batch, 20, 2),
        torch.rand(batch, frames, 3, size // 2, size // 2),
        torch.randn(batch, windows, spec.num_mels, spec.mel_window),
    )
