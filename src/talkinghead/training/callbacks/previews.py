"""Callback that writes generated frames and clips during training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from talkinghead.features.faces.alignment import mouth_crop, paste_mouth
from talkinghead.media.timing import frame_time_s, seconds_to_samples
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.training.modules.lipsync_gan import LipSyncGANModule
from talkinghead.types import AVSpec, FloatArray, UInt8Array
from talkinghead.value_rules import PositiveInt


class Preview(Callback):
    """A callback that writes a strip of real and generated frames, and a short clip with audio.

    The strips are also logged to TensorBoard and W&B, the clips to W&B.

    Args:
        output_dir: Folder in which the folders `strips` and `clips` are created.
        every_n_iterations: Number of iterations between previews; another one is written when
            training ends.
        num_rows: Number of windows in the strip.
        clip_frames: Number of frames of the clip.
    """

    def __init__(
        self,
        output_dir: str | Path,
        every_n_iterations: PositiveInt = 500,
        num_rows: PositiveInt = 4,
        clip_frames: PositiveInt = 50,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.every_n_iterations, self.num_rows = every_n_iterations, num_rows
        self.clip_frames = clip_frames

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if isinstance(pl_module, LipSyncGANModule) and trainer.is_global_zero:
            last = pl_module.iteration >= pl_module.max_iterations
            if last or pl_module.iteration % self.every_n_iterations == 0:
                self._write(trainer, pl_module)

    @torch.no_grad()
    def _write(self, trainer: L.Trainer, module: LipSyncGANModule) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = move_data_to_device(datamodule.preview_batch(self.num_rows), module.device)
        strip = _draw_strip(batch, module(batch).mouth, module.spec)
        name = f"{module.iteration:07d}"
        write_image(self.output_dir / "strips" / f"{name}.png", strip)
        batch = datamodule.preview_batch(1, self.clip_frames)
        mouths = module(move_data_to_device(batch, module.device)).mouth.cpu()
        faces = paste_mouth(batch["faces"], mouths, module.spec)[0]
        clip = self.output_dir / "clips" / f"{name}.mp4"
        _write_clip(clip, faces, batch["audio"][0].numpy(), module.spec)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("preview", strip, module.iteration, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("preview", [strip], module.iteration)
                logger.log_video("preview_clip", [str(clip)], module.iteration)


def _draw_strip(batch: Mapping[str, Tensor], mouths: Tensor, spec: AVSpec) -> UInt8Array:
    """Return an image, uint8 [H, W, 3], that compares real and generated frames.

    It has a row of real frames and a row of generated frames per window. Each row begins with the
    reference.
    """
    reference = mouth_crop(batch["reference_face"], spec).unsqueeze(1)
    both = [torch.cat([reference, frames], dim=1) for frames in (batch["mouths"], mouths)]
    rows = torch.stack(both, dim=1).flatten(0, 1)
    image = rows.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    return (image * 255).round().byte().cpu().numpy()


def _write_clip(path: Path, faces: Tensor, audio: FloatArray, spec: AVSpec) -> None:
    """Write a video of faces, float [T, 3, H, W] in [0, 1], with mono audio samples."""
    frames = (faces * 255).round().byte().permute(0, 2, 3, 1).numpy()
    num_samples = seconds_to_samples(frame_time_s(len(frames), spec.fps), spec.sample_rate)
    with VideoWriter(path, spec.face_size, spec.face_size, spec.fps, spec.sample_rate) as writer:
        writer.write_audio(np.asarray(audio[:num_samples], dtype=np.float32))
        for frame in frames:
            writer.write(frame)
