"""Training the generator: reconstruction, perception, the sync expert and a discriminator.

Shape suffixes: B clips, T frames, W audio windows, C channels or feature rows, K mel frames, H and
    W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.features.audio_features import SILENCE
from talkinghead.features.faces.alignment import fill_mouth, mouth_crop
from talkinghead.losses.adversarial_loss import gradient_penalty
from talkinghead.losses.generator_loss import GeneratorLoss
from talkinghead.losses.sync_loss import info_nce, silent
from talkinghead.models.checkpoint import EXPERT, GENERATOR, SCHEMA_VERSION, build, load_expert
from talkinghead.models.discriminator import Discriminator
from talkinghead.models.lipsync.decoder import GeneratorOutput, lip_box
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.training.acceleration import SpeedOptions
from talkinghead.training.distributed import gather
from talkinghead.training.fsdp import shard_networks
from talkinghead.training.optim import (
    MovingAverage,
    OptimizerConfig,
    can_fuse,
    clip_gradients,
    require_finite,
)
from talkinghead.types import AVSpec

_NAMES = ("generator", "discriminator", "sync_discriminator")
_PENALTY_EVERY = 4
"""Iterations to one of the gradient penalty, which then counts as often: it is slow."""


class LipSyncGANModule(L.LightningModule):
    """Manual steps, each finished before the next: discriminator, sync discriminator, generator.

    Args:
        av: the AVSpec, or its fields.
        generator: arguments of `LipSyncGenerator`.
        discriminator: arguments of `Discriminator`.
        loss: arguments of `GeneratorLoss`: weights or their schedules, and the kinds of losses.
        optimizer: fields of `OptimizerConfig` for the generator.
        discriminator_optimizer: likewise, for the discriminators.
        discriminator_penalty: of steep discriminators, see `gradient_penalty`; 0 for none.
        sync_discriminator: "frozen" (an expert that does not learn) or "joint" (trained on real
            pairs beside the generator: a third optimizer).
        sync_expert: path of the expert, "default" for the packaged one, or None: frozen, the sync
            weight is then 0; joint, it starts from random weights.
        sync_arguments: arguments of `SyncDiscriminator` for a joint one without a path.
        init_from: a checkpoint whose generator's weights to start from.
        ema_decay: of the generator's moving average.
        gradient_clip: the highest norm of each optimizer's gradients; 0 for none.
        accumulate: batches whose gradients are averaged for one step; iterations count batches.
        balance_every: every so many iterations each term's gradient is measured by itself, where
            the pictures leave the generator (`train/balance/...`); 0 for never.
        speed: fields of `SpeedOptions`.
        max_iterations: where training ends.
        license, trained_on: written into the checkpoint.

    Raises:
        UsageError: `sync_discriminator` is unknown.
        CheckpointError: a checkpoint is missing, broken or was made for another AVSpec.
    """

    def __init__(
        self,
        av: AVSpec | Mapping[str, Any],
        generator: Mapping[str, Any],
        discriminator: Mapping[str, Any],
        loss: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        discriminator_penalty: float = 1e-4,
        sync_discriminator: Literal["frozen", "joint"] = "frozen",
        sync_expert: str | None = None,
        sync_arguments: Mapping[str, Any] | None = None,
        init_from: str | None = None,
        ema_decay: float = 0.999,
        gradient_clip: float = 1.0,
        accumulate: int = 1,
        balance_every: int = 0,
        speed: Mapping[str, Any] | None = None,
        max_iterations: int = 100_000,
        license: str = "unknown",
        trained_on: str = "unknown",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if sync_discriminator not in ("frozen", "joint"):
            raise UsageError(f"sync_discriminator={sync_discriminator}: choose frozen or joint")
        self.spec = av if isinstance(av, AVSpec) else AVSpec.from_dict(av)
        self.arguments = {**generator}
        self.generator = cast(LipSyncGenerator, build(GENERATOR, generator, self.spec))
        if init_from is not None:
            self._start_from(init_from)
        self.ema = MovingAverage(GENERATOR, self.generator, ema_decay)
        self.discriminator = Discriminator(**discriminator)
        self.discriminator_penalty = discriminator_penalty
        self.joint = sync_discriminator == "joint"
        self.sync = self._build_sync(sync_expert, sync_arguments)
        self.losses = GeneratorLoss(self.spec.mouth_size, **loss)
        configs = (optimizer, discriminator_optimizer, discriminator_optimizer)
        self.optimizer_configs = [OptimizerConfig(**c) for c in configs[: 3 if self.joint else 2]]
        self.gradient_clip, self.max_iterations = gradient_clip, max_iterations
        self.accumulate, self.balance_every = accumulate, balance_every
        SpeedOptions(**(speed or {})).apply(self.generator)
        self.meta = {"license": license, "trained_on": trained_on}
        self.iteration = 0

    def forward(self, batch: Mapping[str, Tensor], audio: Tensor | None = None) -> GeneratorOutput:
        """The moving average's mouths for a batch, or for other `audio` windows [B, W, C, K]."""
        return _generate(self.ema.network, batch, audio)

    @property
    def window(self) -> dict[str, Any]:
        """What the datamodule must give.

        Audio around the frames as far as the transformer hears, and its rows; what conditions it.
        """
        return {
            "context_frames": self.generator.context_frames,
            "lookahead_frames": self.generator.lookahead_frames,
            "prosody": self.generator.audio_encoder.needs_prosody,
            "emotions": self.generator.emotion.names if self.generator.emotion else [],
            "head_pose": self.generator.pose is not None,
        }

    def configure_model(self) -> None:
        shard_networks(self, large=[self.generator], small=[self.discriminator, self.sync])

    def configure_optimizers(self) -> list[Optimizer]:
        networks = [self.generator, self.discriminator, self.sync]
        fused = self._trainer is not None and can_fuse(str(self._trainer.precision))
        return [
            c.build(n.parameters(), fused)
            for c, n in zip(self.optimizer_configs, networks, strict=False)
        ]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        optimizers = self._optimizers()
        for name, config, optimizer in zip(
            _NAMES, self.optimizer_configs, optimizers, strict=False
        ):
            self.log(f"train/lr/{name}", config.apply(optimizer.optimizer, self.iteration))
        target = batch["mouths"]
        output = _generate(self.generator, batch)
        weights = self.losses.weights_at(self.iteration)
        if self.sync is None:
            weights["sync"] = 0.0
        if weights["adversarial"] > 0:
            self._discriminator_step(optimizers[1], output.mouth.detach(), batch)
        if self.joint:
            self._sync_step(optimizers[2], target, batch)
        self._generator_step(optimizers[0], output, target, batch, weights)
        if self.steps_now:
            self.ema.update(self.generator, self.iteration // self.accumulate)
        self.iteration += 1
        self.trainer.should_stop = self.trainer.should_stop or self.iteration >= self.max_iterations

    @property
    def steps_now(self) -> bool:
        """Whether this iteration ends a group of `accumulate` batches."""
        return (self.iteration + 1) % self.accumulate == 0

    def _optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        return optimizers

    def _discriminator_step(
        self, optimizer: LightningOptimizer, fake: Tensor, batch: dict[str, Tensor]
    ) -> None:
        penalised = self.discriminator_penalty > 0 and self.iteration % _PENALTY_EVERY == 0
        pictures = [
            tuple(picture.requires_grad_(penalised) for picture in self._pictures(mouths, batch))
            for mouths in (batch["mouths"], fake)
        ]
        with self.toggled_optimizer(optimizer):
            real_logits, fake_logits = (self.discriminator(*pair)[0] for pair in pictures)
            loss = total = self.losses.adversarial.discriminator(real_logits, fake_logits)
            if penalised:
                weight = _PENALTY_EVERY * self.discriminator_penalty
                total = loss + weight * gradient_penalty(real_logits, pictures[0])
                total = total + weight * gradient_penalty(fake_logits, pictures[1])
            self._step(optimizer, total, "discriminator", batch)
        self.log("train/discriminator/loss", loss)
        for name, real, made in zip(("mouth", "face"), real_logits, fake_logits, strict=False):
            self.log(f"train/discriminator/{name}_real", real.mean())
            self.log(f"train/discriminator/{name}_fake", made.mean())

    def _pictures(self, mouths: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the discriminator looks at: mouths [B * T, ...] and the faces with them in place.

        Of the mouths, no more than what may be painted.
        """
        faces = batch["masked_face"]
        if self.discriminator.face is not None:
            faces = fill_mouth(faces, mouths, self.spec)
        rows, columns = lip_box(self.spec.mouth_size)
        return mouths[..., rows, columns].flatten(0, 1), faces.flatten(0, 1)

    def _sync_step(
        self, optimizer: LightningOptimizer, real: Tensor, batch: dict[str, Tensor]
    ) -> None:
        with self.toggled_optimizer(optimizer):
            loss = self._sync_loss(real, batch)
            self._step(optimizer, loss, "sync_discriminator", batch)
        self.log("train/sync_discriminator/loss", loss)

    def _generator_step(
        self,
        optimizer: LightningOptimizer,
        output: GeneratorOutput,
        target: Tensor,
        batch: dict[str, Tensor],
        weights: dict[str, float],
    ) -> None:
        with self.toggled_optimizer(optimizer):
            terms = self.losses(output, target, weights, batch)
            if weights["adversarial"] > 0 or weights["feature_matching"] > 0:
                pictures = (self._pictures(m, batch) for m in (output.mouth, target))
                terms |= self.losses.adversarial_terms(self.discriminator, *pictures)
            if weights["identity"] > 0:
                faces = (
                    fill_mouth(batch["masked_face"], m, self.spec) for m in (output.mouth, target)
                )
                terms |= self.losses.identity_term(*(f.flatten(0, 1) for f in faces))
            if weights["sync"] > 0:
                terms["sync"] = self._sync_loss(self.losses.for_sync(output), batch)
            weighted = {name: weights[name] * term for name, term in terms.items()}
            if self.balance_every and self.iteration % self.balance_every == 0:
                self._log_balance(weighted)
            loss = torch.stack(list(weighted.values())).sum()
            self._step(optimizer, loss, "generator", batch)
        self.log("train/generator/loss", loss, prog_bar=True)
        self.log_dict({f"train/generator/{name}": term for name, term in terms.items()})
        self.log_dict({f"train/weight/{name}": weight for name, weight in weights.items()})

    def _log_balance(self, weighted: Mapping[str, Tensor]) -> None:
        """Each weighted term's gradient alone, on the weights that the pictures come out of."""
        head = self.generator.decoder.head.weight
        for name, term in weighted.items():
            (gradient,) = torch.autograd.grad(term, head, retain_graph=True, allow_unused=True)
            if gradient is not None:
                self.log(f"train/balance/{name}", gradient.norm())

    def _step(
        self, optimizer: LightningOptimizer, loss: Tensor, name: str, batch: dict[str, Tensor]
    ) -> None:
        require_finite(loss, f"train/{name}/loss", self.iteration, batch)
        if self.iteration % self.accumulate == 0:
            optimizer.zero_grad()
        self.manual_backward(loss / self.accumulate)
        if self.steps_now:
            optimizer.step()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        index = [o.optimizer for o in self._optimizers()].index(optimizer)
        norm = clip_gradients(optimizer, self.gradient_clip)
        self.log(f"train/grad_norm/{_NAMES[index]}", norm)

    def validation_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """L1 on the mouth: right audio, other audio, silence, and the copied reference."""
        target = batch["mouths"]
        silence = torch.full_like(batch["mel"], SILENCE)
        silence[:, :, self.spec.num_mels :: 2] = 0.0
        mouths = {
            "l1": self(batch).mouth,
            "audit/l1_other_audio": self(batch, batch["mel_negative"]).mouth,
            "audit/l1_silence": self(batch, silence).mouth,
            "audit/l1_copied_reference": mouth_crop(batch["reference_face"], self.spec).unsqueeze(
                1
            ),
        }
        scores = {name: (mouth - target).abs().mean() for name, mouth in mouths.items()}
        scores["audit/l1_ratio"] = scores["audit/l1_other_audio"] / scores["l1"].clamp_min(1e-6)
        if self.sync is not None:
            scores["sync"] = self._sync_loss(mouths["l1"], batch)
        scores["loss"] = scores["l1"]
        split = self.trainer.datamodule.val_splits[dataloader_idx]  # type: ignore[attr-defined]
        prefix = "val" if dataloader_idx == 0 else f"val_{split}"
        self.log_dict(
            {f"{prefix}/{name}": score for name, score in scores.items()},
            batch_size=len(target),
            add_dataloader_idx=False,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The frozen expert is a file of its own; a loss's weights belong to who trains on.
        if not self.joint:
            drop_prefix(checkpoint["state_dict"], "sync.")
        drop_prefix(checkpoint["state_dict"], "losses.")
        checkpoint |= {"schema_version": SCHEMA_VERSION, GENERATOR: self.arguments}
        checkpoint |= {"av": self.spec.to_dict(), "iteration": self.iteration, **self.meta}
        checkpoint["loss_weights"] = self.losses.weights_at(self.iteration)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.iteration = checkpoint["iteration"]
        frozen = {"losses": self.losses}
        if not self.joint and self.sync is not None:
            frozen["sync"] = self.sync
        for prefix, module in frozen.items():
            own = {f"{prefix}.{name}": t for name, t in module.state_dict().items()}
            checkpoint["state_dict"] |= own

    def _sync_loss(self, mouths: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """InfoNCE of mouths [B, T, 3, H, W] against the batch's audio and wrong audio."""
        assert self.sync is not None
        first = self.generator.context_frames
        mouths = mouths[:, : self.sync.num_frames]
        own, wrong = (
            batch[k][:, first : first + self.sync.num_frames] for k in ("mel", "mel_negative")
        )
        # The windows of all processes are one batch: own sounds first, then the wrong ones.
        video = gather(self.sync.embed_video(mouths, batch["mean_mouth"]))
        audio = torch.cat([gather(self.sync.embed_audio(part)) for part in (own, wrong)])
        quiet = torch.cat([gather(silent(part, self.spec.num_mels)) for part in (own, wrong)])
        alike = quiet[: len(video), None] & quiet[None, :]
        alike.diagonal().fill_(False)
        return info_nce(video, audio, self.sync.scale, alike)

    def _build_sync(self, path: str | None, arguments: Mapping[str, Any] | None) -> Any:
        if path is not None:
            loaded = load_expert(path)
            if difference := loaded.spec.difference(self.spec):
                raise CheckpointError(
                    f"sync expert {path} was made for another AVSpec ({difference}, its own first):"
                    " train one with this av (experiment=sync_expert), or change the av config"
                )
            return loaded.model.requires_grad_(self.joint)
        if self.joint:
            return build(EXPERT, arguments or {}, self.spec)
        return None

    def _start_from(self, path: str) -> None:
        from talkinghead.models.checkpoint import load_generator

        loaded, own = load_generator(path), self.generator.state_dict()
        # What conditions it begins at nothing, and may be new.
        new = {n: t for n, t in own.items() if n.startswith(("emotion.", "pose."))}
        try:
            self.generator.load_state_dict({**new, **loaded.model.state_dict()})
        except RuntimeError as error:
            raise CheckpointError(
                f"init_from {path} holds another generator: give the model that it was trained with"
            ) from error


def _generate(
    network: nn.Module, batch: Mapping[str, Tensor], audio: Tensor | None = None
) -> GeneratorOutput:
    """A generator's mouths for a batch, or for other `audio` windows [B, W, C, K]."""
    audio = batch.get("mel_heard", batch["mel"]) if audio is None else audio
    names = ("emotion", "head_turn", "spoken_mel", "teacher_forced_lips", "told_mel")
    conditions = (batch.get(name) for name in names)
    output: GeneratorOutput = network(
        batch["reference_face"],
        batch["reference_lips"],
        batch["masked_face"],
        audio,
        *conditions,
    )
    return output


def drop_prefix(state: dict[str, Tensor], prefix: str) -> None:
    """Takes a submodule's entries out of a state dict."""
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]
