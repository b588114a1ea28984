"""Training of the sync expert, which compares speech with mouth motion.

Shape suffixes: B clips, S consecutive frames, N windows, T frames of a window, C channels or
feature rows, K mel frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor

from talkinghead.errors import UsageError
from talkinghead.losses.sync_loss import cosine_bce, info_nce, silent_windows
from talkinghead.models.checkpoint import EXPERT
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.training.distributed import gather, shard_networks
from talkinghead.training.modules.single_network import SingleNetworkModule, validation_prefix
from talkinghead.types import AVSpec


class SyncExpertModule(SingleNetworkModule):
    """LightningModule that trains a `SyncDiscriminator` on real pairs of audio and video.

    The consecutive frames of each clip in a batch are cut into windows that do not overlap. The
    other windows of the same clip are hard negatives, windows of other clips are easy negatives.

    Args:
        av: The AVSpec, or its fields.
        sync_expert: Arguments of `SyncDiscriminator`.
        optimizer: Fields of `OptimizerConfig`.
        loss: "info_nce" over the batch, or "bce": the binary cross-entropy of the scaled cosine,
            with one negative for each pair, as in Wav2Lip.
        **options: Other arguments of `SingleNetworkModule`.

    Raises:
        UsageError: `loss` is unknown; or, when training begins, clips have fewer frames than a
            window.
    """

    kind = EXPERT

    def __init__(
        self,
        av: AVSpec | Mapping[str, Any],
        sync_expert: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        loss: Literal["info_nce", "bce"] = "info_nce",
        **options: Any,
    ) -> None:
        if loss not in ("info_nce", "bce"):
            raise UsageError(f"loss={loss}: choose info_nce or bce")
        super().__init__(av, optimizer, **options)
        self.add_network(sync_expert)
        self.loss = loss

    @property
    def expert(self) -> SyncDiscriminator:
        """The network that is trained."""
        return cast(SyncDiscriminator, self.network)

    @property
    def window(self) -> dict[str, Any]:
        """Arguments for the data module: mouth images and audio without context."""
        return {
            "context_frames": 0,
            "lookahead_frames": 0,
            "audio_features": self.expert.audio_encoder.input_features,
            "mouths_only": True,
        }

    def configure_model(self) -> None:
        shard_networks(self, large=[], small=[self.expert])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.apply_learning_rate()
        loss, figures = self._loss(batch)
        self.log("train/sync_expert/accuracy", figures.pop("accuracy"), prog_bar=True)
        self.log_dict({f"train/sync_expert/{name}": value for name, value in figures.items()})
        return self.finish_iteration("train/sync_expert/loss", loss, batch)

    def validation_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        loss, figures = self._loss(batch)
        prefix = validation_prefix(self, dataloader_idx)
        self.log_dict(
            {f"{prefix}/loss": loss, f"{prefix}/sync_expert/accuracy": figures["accuracy"]},
            prog_bar=True,
            batch_size=len(batch["mouths"]),
            add_dataloader_idx=False,
        )

    def num_windows(self, batch: Mapping[str, Tensor]) -> int:
        """Return the number of windows in a batch."""
        num_clips, num_frames = batch["mouths"].shape[:2]
        if num_frames < self.expert.num_frames:
            raise UsageError(
                f"data.num_frames={num_frames} is shorter than a window of "
                f"model.sync_expert.num_frames={self.expert.num_frames}: give data.num_frames "
                "a multiple of it"
            )
        return num_clips * (num_frames // self.expert.num_frames)

    def _loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        mouths, means, audio = self._windows(batch)
        video_D, audio_D = (gather(e) for e in self.expert(mouths, means, audio))
        scale = self.expert.scale
        silent = gather(silent_windows(audio, self.spec.num_mels))
        both_silent = silent[:, None] & silent[None, :]
        both_silent.fill_diagonal_(False)
        detached = (video_D.detach().float(), audio_D.detach().float())
        figures = _batch_figures(*detached, silent, both_silent)
        if self.loss == "info_nce":
            return info_nce(video_D, audio_D, scale, both_silent), figures
        figures["chance"] = torch.full_like(figures["chance"], math.log(2))
        # Two silent windows are not a valid negative pair, because their audio is the same.
        valid = ~(silent & silent.roll(1, 0))
        pairs = torch.cat([audio_D, audio_D.roll(1, 0)[valid]])
        target = torch.zeros(len(pairs), device=pairs.device)
        target[: len(audio_D)] = 1.0
        return cosine_bce(torch.cat([video_D, video_D[valid]]), pairs, target, scale), figures

    def _windows(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return mouths, mean mouths and audio of N = B * (S // T) windows of T frames."""
        num_frames = self.expert.num_frames
        count = self.num_windows(batch) // len(batch["mouths"])
        mouths, audio = (
            batch[name][:, : count * num_frames].unflatten(1, (count, num_frames)).flatten(0, 1)
            for name in ("mouths", "mel")
        )
        return mouths, batch["mean_mouth"].repeat_interleave(count, 0), audio


def _batch_figures(
    video_D: Tensor, audio_D: Tensor, silent: Tensor, both_silent: Tensor
) -> dict[str, Tensor]:
    """Return scalar measurements of a batch, for the log and for `SyncDiagnosis`.

    `accuracy` is the fraction of windows whose most similar audio is their own. `chance` is the
    loss of an expert that cannot distinguish the windows. `silent` is the fraction of silent
    windows. `spread_video` and `spread_audio` are the variances of the embeddings, from 0 (all
    equal) to 1.
    """
    best = (video_D @ audio_D.T).masked_fill(both_silent, -1).argmax(1)
    return {
        "accuracy": (best == torch.arange(len(best), device=best.device)).float().mean(),
        "chance": (len(both_silent) - both_silent.sum(1)).float().log().mean(),
        "silent": silent.float().mean(),
        "spread_video": (video_D - video_D.mean(0)).square().sum(1).mean(),
        "spread_audio": (audio_D - audio_D.mean(0)).square().sum(1).mean(),
    }
