"""Training of the generator with reconstruction, perceptual, sync and adversarial losses.

Shape suffixes: B clips, T frames, W audio windows, C channels or feature rows, K mel frames, H and
W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from talkinghead.errors import UsageError
from talkinghead.features.audio_features import select_features, silence_column
from talkinghead.features.faces.alignment import fill_mouth, mouth_crop
from talkinghead.losses.adversarial_loss import gradient_penalty
from talkinghead.losses.generator_loss import GeneratorLoss
from talkinghead.losses.sync_loss import info_nce, silent_windows
from talkinghead.models.checkpoint import GENERATOR, SCHEMA_VERSION, build
from talkinghead.models.discriminator import Discriminator
from talkinghead.models.lipsync.decoder import GeneratorOutput
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.models.lipsync.mouth_painting import lip_box
from talkinghead.training.distributed import gather, shard_networks
from talkinghead.training.gan_options import (
    GANOptions,
    SpeedOptions,
    build_sync_discriminator,
    load_initial_weights,
)
from talkinghead.training.modules.single_network import validation_prefix
from talkinghead.training.optim import (
    MovingAverage,
    OptimizerConfig,
    clip_gradients,
    require_finite,
    seed_iteration,
)
from talkinghead.types import AVSpec

_OPTIMIZER_NAMES = ("generator", "discriminator", "sync_discriminator")
_PENALTY_EVERY = 4
"""Number of iterations between gradient penalties, which are slow to compute.

The weight of each penalty is multiplied by this number.
"""


class LipSyncGANModule(L.LightningModule):
    """LightningModule that trains the generator, with manual optimization.

    An iteration updates the discriminator, then the sync discriminator, then the generator.

    Args:
        av: The AVSpec, or its fields.
        generator: Arguments of `LipSyncGenerator`.
        discriminator: Arguments of `Discriminator`.
        loss: Arguments of `GeneratorLoss`: kinds, weights and schedules of the loss terms.
        optimizer: Fields of `OptimizerConfig` for the generator.
        discriminator_optimizer: Fields of `OptimizerConfig` for the discriminators.
        **options: Fields of `GANOptions`.

    Raises:
        UsageError: An option is unknown; the sync discriminator needs audio features that the
            generator does not use; or, when training begins, the precision does not allow the
            accumulation of gradients.
        CheckpointError: A checkpoint is missing, broken, of another shape or for another AVSpec.

    Example:
        >>> module = LipSyncGANModule(
        ...     AVSpec(), {"face_encoder": "small"}, {}, {"weights": {"l1": 1.0}}, {}, {}
        ... )
        >>> train(module, datamodule, build_trainer({}, [], []))
    """

    def __init__(
        self,
        av: AVSpec | Mapping[str, Any],
        generator: Mapping[str, Any],
        discriminator: Mapping[str, Any],
        loss: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        discriminator_optimizer: Mapping[str, Any],
        **options: Any,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.options = GANOptions(**options)
        self.max_iterations, self.accumulate = self.options.max_iterations, self.options.accumulate
        self.spec = av if isinstance(av, AVSpec) else AVSpec.from_dict(av)
        self.arguments = {**generator}
        self.generator = cast(LipSyncGenerator, build(GENERATOR, generator, self.spec))
        if self.options.init_from is not None:
            load_initial_weights(self.generator, self.options.init_from, self.spec)
        self.ema = MovingAverage(GENERATOR, self.generator, self.options.ema_decay)
        self.discriminator = Discriminator(**discriminator)
        self.sync: Any = build_sync_discriminator(self.options, self.spec, self.generator)
        self.losses = GeneratorLoss(self.spec.mouth_size, **loss)
        configs = [optimizer, discriminator_optimizer]
        if self.options.joint:
            configs.append(discriminator_optimizer)
        self.optimizer_configs = [OptimizerConfig(**config) for config in configs]
        cast(SpeedOptions, self.options.speed).apply(self.generator)
        self.iteration = 0

    def forward(self, batch: Mapping[str, Tensor], audio: Tensor | None = None) -> GeneratorOutput:
        """Generate the mouths of a batch with the averaged weights.

        `audio`, [B, W, C, K], replaces the audio windows of the batch.
        """
        return _generate(self.ema.network, batch, audio)

    @property
    def window(self) -> dict[str, Any]:
        """Arguments for the data module that depend on the generator."""
        return {
            "context_frames": self.generator.context_frames,
            "lookahead_frames": self.generator.lookahead_frames,
            "audio_features": self.generator.input_features,
            "emotions": self.generator.emotion.names if self.generator.emotion else [],
            "head_pose": self.generator.pose is not None,
        }

    def configure_model(self) -> None:
        shard_networks(self, large=[self.generator], small=[self.discriminator, self.sync])

    def configure_optimizers(self) -> list[Optimizer]:
        networks = [self.generator, self.discriminator, self.sync]
        # With 16-mixed the loss is scaled. A fused optimizer unscales the gradients in its step,
        # after they have been clipped, so the clipping would be wrong.
        precision = None if self._trainer is None else self._trainer.precision
        several = self.options.joint or self.losses.is_adversarial
        if precision == "16-mixed" and several and self.accumulate > 1:
            raise UsageError(
                f"model.accumulate={self.accumulate} with discriminators does not work with "
                "trainer.precision=16-mixed, because the step of one optimizer changes the scale "
                "of the gradients that another one accumulates: choose model.accumulate=1, or "
                "trainer.precision=bf16-mixed or 32-true"
            )
        fused = precision is not None and precision != "16-mixed"
        return [
            c.build(n.parameters(), fused)
            for c, n in zip(self.optimizer_configs, networks, strict=False)
        ]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        # Dropout then depends on the iteration only, and a resumed run equals an uninterrupted one.
        seed = self.trainer.datamodule.options.seed  # type: ignore[attr-defined]
        seed_iteration(seed, self.iteration, self.global_rank)
        optimizers = cast(list[LightningOptimizer], self.optimizers())
        named = zip(_OPTIMIZER_NAMES, self.optimizer_configs, optimizers, strict=False)
        for name, config, optimizer in named:
            self.log(f"train/lr/{name}", config.apply(optimizer.optimizer, self.iteration))
        output = _generate(self.generator, batch)
        weights = self.losses.weights_at(self.iteration)
        if self.sync is None:
            weights["sync"] = 0.0
        if weights["adversarial"] > 0:
            self._discriminator_step(optimizers[1], output.mouth.detach(), batch)
        if self.options.joint:
            self._sync_step(optimizers[2], batch)
        self._generator_step(optimizers[0], output, batch, weights)
        if self.steps_now:
            self.ema.update(self.generator, self.iteration // self.accumulate)
        self.iteration += 1
        self.trainer.should_stop = self.trainer.should_stop or self.iteration >= self.max_iterations

    @property
    def steps_now(self) -> bool:
        """Whether an optimizer step follows this iteration, the last of `accumulate` batches."""
        return (self.iteration + 1) % self.accumulate == 0

    def _discriminator_step(
        self, optimizer: LightningOptimizer, fake_mouths: Tensor, batch: dict[str, Tensor]
    ) -> None:
        penalty = self.options.discriminator_penalty
        penalised = penalty > 0 and self.iteration % _PENALTY_EVERY == 0
        real, fake = (
            tuple(t.requires_grad_(penalised) for t in self._discriminator_inputs(mouths, batch))
            for mouths in (batch["mouths"], fake_mouths)
        )
        with self.toggled_optimizer(optimizer):
            real_logits, fake_logits = (self.discriminator(*pair)[0] for pair in (real, fake))
            loss = total = self.losses.adversarial.discriminator(real_logits, fake_logits)
            if penalised:
                total = loss + _PENALTY_EVERY * penalty * gradient_penalty(real_logits, real)
                total = total + _PENALTY_EVERY * penalty * gradient_penalty(fake_logits, fake)
            self._step(optimizer, total, "discriminator", batch)
        self.log("train/discriminator/loss", loss)
        pairs = zip(("mouth", "face"), real_logits, fake_logits, strict=False)
        for name, on_real, on_fake in pairs:
            self.log(f"train/discriminator/{name}_real", on_real.mean())
            self.log(f"train/discriminator/{name}_fake", on_fake.mean())

    def _discriminator_inputs(
        self, mouths: Tensor, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the inputs of the discriminator: mouths [B * T, ...] and faces with these mouths.

        The mouths are cropped to the region that the generator can change.
        """
        faces = batch["masked_face"]
        if self.discriminator.face is not None:
            faces = fill_mouth(faces, mouths, self.spec)
        rows, columns = lip_box(self.spec.mouth_size)
        return mouths[..., rows, columns].flatten(0, 1), faces.flatten(0, 1)

    def _sync_step(self, optimizer: LightningOptimizer, batch: dict[str, Tensor]) -> None:
        with self.toggled_optimizer(optimizer):
            loss = self._sync_loss(batch["mouths"], batch)
            self._step(optimizer, loss, "sync_discriminator", batch)
        self.log("train/sync_discriminator/loss", loss)

    def _generator_step(
        self,
        optimizer: LightningOptimizer,
        output: GeneratorOutput,
        batch: dict[str, Tensor],
        weights: dict[str, float],
    ) -> None:
        pair = (output.mouth, batch["mouths"])
        with self.toggled_optimizer(optimizer):
            terms = self.losses(output, batch["mouths"], weights, batch)
            if weights["adversarial"] > 0 or weights["feature_matching"] > 0:
                inputs = (self._discriminator_inputs(mouths, batch) for mouths in pair)
                terms |= self.losses.adversarial_terms(self.discriminator, *inputs)
            if weights["identity"] > 0:
                faces = (fill_mouth(batch["masked_face"], m, self.spec) for m in pair)
                terms |= self.losses.identity_term(*(f.flatten(0, 1) for f in faces))
            if weights["sync"] > 0:
                terms["sync"] = self._sync_loss(self.losses.mouths_for_sync(output), batch)
            weighted = {name: weights[name] * term for name, term in terms.items()}
            every = self.options.balance_every
            if every and self.iteration % every == 0:
                self._log_balance(weighted)
            loss = torch.stack(list(weighted.values())).sum()
            self._step(optimizer, loss, "generator", batch)
        self.log("train/generator/loss", loss, prog_bar=True)
        self.log_dict({f"train/generator/{name}": term for name, term in terms.items()})
        self.log_dict({f"train/weight/{name}": weight for name, weight in weights.items()})

    def _log_balance(self, weighted: Mapping[str, Tensor]) -> None:
        """Log the norm of the gradient of each weighted term in the last layer of the decoder."""
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
        optimizers = cast(list[LightningOptimizer], self.optimizers())
        index = [o.optimizer for o in optimizers].index(optimizer)
        norm = clip_gradients(optimizer, self.options.gradient_clip)
        self.log(f"train/grad_norm/{_OPTIMIZER_NAMES[index]}", norm)

    def validation_step(
        self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Log the L1 of the mouth with true audio, other audio, silence and a copied reference."""
        target = batch["mouths"]
        silence = silence_column(self.spec, self.generator.input_features)
        silence = silence.to(batch["mel"])[:, None].expand_as(batch["mel"])
        reference = mouth_crop(batch["reference_face"], self.spec).unsqueeze(1)
        mouths = {
            "l1": self(batch).mouth,
            "audit/l1_other_audio": self(batch, batch["mel_negative"]).mouth,
            "audit/l1_silence": self(batch, silence).mouth,
            "audit/l1_copied_reference": reference,
        }
        scores = {name: (mouth - target).abs().mean() for name, mouth in mouths.items()}
        scores["audit/l1_ratio"] = scores["audit/l1_other_audio"] / scores["l1"].clamp_min(1e-6)
        if self.sync is not None:
            scores["sync"] = self._sync_loss(mouths["l1"], batch)
        scores["loss"] = scores["l1"]
        prefix = validation_prefix(self, dataloader_idx)
        self.log_dict(
            {f"{prefix}/{name}": score for name, score in scores.items()},
            batch_size=len(target),
            add_dataloader_idx=False,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Frozen networks are not saved, because they are loaded from their own files.
        frozen = ("losses.",) if self.options.joint else ("losses.", "sync.")
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith(frozen)]:
            del state[name]
        checkpoint |= {"schema_version": SCHEMA_VERSION, GENERATOR: self.arguments}
        checkpoint |= {"av": self.spec.to_dict(), "iteration": self.iteration}
        checkpoint |= {"license": self.options.license, "trained_on": self.options.trained_on}
        checkpoint["loss_weights"] = self.losses.weights_at(self.iteration)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.iteration = checkpoint["iteration"]
        frozen = {"losses": self.losses}
        if not self.options.joint and self.sync is not None:
            frozen["sync"] = self.sync
        for prefix, module in frozen.items():
            own = {f"{prefix}.{name}": t for name, t in module.state_dict().items()}
            checkpoint["state_dict"] |= own

    def _sync_loss(self, mouths: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the InfoNCE loss of mouths [B, T, 3, H, W] with true and negative audio."""
        first, num_frames = self.generator.context_frames, self.sync.num_frames
        names, needed = self.generator.input_features, self.sync.audio_encoder.input_features
        own, negative = (
            select_features(batch[k][:, first : first + num_frames], self.spec, names, needed)
            for k in ("mel", "mel_negative")
        )
        # The windows of all processes form one batch: the true audio first, then the negatives.
        video = gather(self.sync.embed_video(mouths[:, :num_frames], batch["mean_mouth"]))
        audio = torch.cat([gather(self.sync.embed_audio(part)) for part in (own, negative)])
        num_mels = self.spec.num_mels
        silent = torch.cat([gather(silent_windows(part, num_mels)) for part in (own, negative)])
        both_silent = silent[: len(video), None] & silent[None, :]
        both_silent.diagonal().fill_(False)
        return info_nce(video, audio, self.sync.scale, both_silent)


def _generate(
    network: nn.Module, batch: Mapping[str, Tensor], audio: Tensor | None = None
) -> GeneratorOutput:
    """Run a generator on a batch; `audio`, [B, W, C, K], replaces the audio of the batch."""
    names = ("emotion", "head_turn", "pseudo_label_mel", "teacher_forced_lips", "decoder_mel")
    output: GeneratorOutput = network(
        batch["reference_face"],
        batch["reference_lips"],
        batch["masked_face"],
        batch["mel"] if audio is None else audio,
        *(batch.get(name) for name in names),
    )
    return output
