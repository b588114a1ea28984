"""Options for training the generator, and construction of the networks that they select."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch.utils.checkpoint import checkpoint

from talkinghead.errors import CheckpointError, DependencyError, UsageError
from talkinghead.models.checkpoint import EXPERT, build, load_expert, load_generator
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.types import GENERATOR_FIELDS, AVSpec
from talkinghead.value_rules import NonNegativeFloat, NonNegativeInt, PositiveInt, UnitFloat


@dataclass(frozen=True)
class SpeedOptions:
    """Options for the speed and the memory use of the generator in training.

    Attributes:
        channels_last: Store convolution weights in channels-last order, which is faster on GPU
            tensor cores.
        compile: Use `torch.compile`, which needs a C++ compiler and several minutes at the start.
        checkpoint_activations: Recompute the activations of encoders, transformer and decoder in
            the backward pass, which needs less memory and about a third more computation.

    Paper: Chen et al., "Training deep nets with sublinear memory cost", 2016, arXiv:1604.06174.
    """

    channels_last: bool = False
    compile: bool = False
    checkpoint_activations: bool = False

    def apply(self, generator: LipSyncGenerator) -> None:
        """Apply the options to a generator in place."""
        if self.channels_last:
            generator.to(memory_format=torch.channels_last)
        if self.checkpoint_activations:
            # These modules have large activations and take only tensors.
            parts = [generator.face_encoder.backbone, generator.context_encoder]
            for part in (*parts, *generator.transformer.layers, *generator.decoder.stages):
                part.forward = partial(checkpoint, part.forward, use_reentrant=False)
        if self.compile:
            _require_compiler()
            generator.compile()


def _require_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        raise DependencyError(
            "model.speed.compile=true needs a C++ compiler (Debian: apt install g++), or leave it "
            "false"
        ) from error


@dataclass(frozen=True)
class GANOptions:
    """Options of `LipSyncGANModule` other than its networks, loss and optimizers.

    Attributes:
        sync_expert: Path of the sync expert; "default" is the packaged sync expert. None omits the
            sync loss, or, with a joint sync discriminator, starts from random weights.
        sync_discriminator: "frozen" (not trained) or "joint" (trained on real pairs together with
            the generator, by a third optimizer).
        sync_arguments: Arguments of `SyncDiscriminator` for joint training from random weights.
        discriminator_penalty: Weight of the gradient penalty of the discriminators; 0 for none.
        init_from: Checkpoint with the initial weights of the generator; "default" is the packaged
            checkpoint, None for random weights.
        ema_decay: Decay of the moving average of the generator weights.
        gradient_clip: Maximum norm of the gradients of each optimizer; 0 for no limit.
        accumulate: Number of batches whose gradients are averaged for one optimizer step. Every
            batch counts as one iteration.
        balance_every: Number of iterations between measurements of the gradient norm of each loss
            term (`train/balance/...`); 0 for never.
        speed: Options for speed and memory use; see `SpeedOptions`.
        max_iterations: Number of iterations after which training ends.
        license: License of the weights, written into the checkpoint.
        trained_on: Description of the training data, written into the checkpoint.

    Raises:
        UsageError: `sync_discriminator` is unknown.
    """

    sync_expert: str | Path | None = None
    sync_discriminator: Literal["frozen", "joint"] = "frozen"
    sync_arguments: Mapping[str, Any] = field(default_factory=dict)
    discriminator_penalty: NonNegativeFloat = 1e-4
    init_from: str | Path | None = None
    ema_decay: UnitFloat = 0.996
    gradient_clip: NonNegativeFloat = 1.0
    accumulate: PositiveInt = 1
    balance_every: NonNegativeInt = 100
    speed: SpeedOptions | Mapping[str, bool] = field(default_factory=SpeedOptions)
    max_iterations: PositiveInt = 20_000
    license: str = "unknown"
    trained_on: str = "unknown"

    def __post_init__(self) -> None:
        if self.sync_discriminator not in ("frozen", "joint"):
            raise UsageError(
                f"sync_discriminator={self.sync_discriminator}: choose frozen or joint"
            )
        if not isinstance(self.speed, SpeedOptions):
            object.__setattr__(self, "speed", SpeedOptions(**self.speed))

    @property
    def joint(self) -> bool:
        """Whether the sync discriminator is trained together with the generator."""
        return self.sync_discriminator == "joint"


def build_sync_discriminator(
    options: GANOptions, spec: AVSpec, generator: LipSyncGenerator
) -> SyncDiscriminator | None:
    """Load or build the sync discriminator; return None if the options disable it."""
    if options.sync_expert is not None:
        loaded = load_expert(options.sync_expert)
        if difference := loaded.spec.difference(spec, GENERATOR_FIELDS):
            raise CheckpointError(
                f"sync expert {options.sync_expert} was made for another AVSpec ({difference}, its "
                "value first): train one with this av (experiment=sync_expert), or change the av "
                "config"
            )
        sync = cast(SyncDiscriminator, loaded.model.requires_grad_(options.joint))
    elif options.joint:
        sync = cast(SyncDiscriminator, build(EXPERT, options.sync_arguments, spec))
    else:
        return None
    missing = set(sync.audio_encoder.input_features) - set(generator.input_features)
    if missing:
        raise UsageError(
            f"the sync discriminator needs the audio features {', '.join(sorted(missing))}, which "
            "the generator does not use: add them to model.generator.audio_features, or use "
            "another sync discriminator"
        )
    return sync


def load_initial_weights(generator: LipSyncGenerator, path: str | Path, spec: AVSpec) -> None:
    """Copy the weights of a checkpoint into a generator for an AVSpec."""
    loaded = load_generator(path)
    if difference := loaded.spec.difference(spec):
        raise CheckpointError(
            f"init_from {path} was trained with another AVSpec ({difference}, its value first): "
            "change the av config, or train without init_from"
        )
    # The initial weights of the conditioning are zero, so the checkpoint need not have them.
    conditioning = {
        name: value
        for name, value in generator.state_dict().items()
        if name.startswith(("emotion.", "pose."))
    }
    try:
        generator.load_state_dict({**conditioning, **loaded.model.state_dict()})
    except RuntimeError as error:
        raise CheckpointError(
            f"init_from {path} holds another generator: give the model that it was trained with"
        ) from error
