"""Options of the generator's training, and the networks that they choose."""

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
from talkinghead.types import AVSpec


@dataclass(frozen=True)
class SpeedOptions:
    """Execution options of the generator in training.

    Attributes:
        channels_last: stores convolution weights channels last, which suits GPU tensor cores.
        compile: uses `torch.compile`, which needs a C++ compiler and minutes at the start.
        checkpoint_activations: recomputes activations of encoders, transformer and decoder in the
            backward pass: less memory for about a third more computation.

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
            # Modules with large activations that take only tensors.
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
        sync_expert: path of the sync expert, "default" for the packaged one, or None: a frozen
            expert then leaves the sync loss out, a joint one starts from random weights.
        sync_discriminator: "frozen" (the expert does not learn) or "joint" (it is trained on real
            pairs together with the generator, by a third optimizer).
        sync_arguments: arguments of `SyncDiscriminator` for a joint one without a path.
        discriminator_penalty: weight of the discriminators' gradient penalty; 0 for none.
        init_from: checkpoint whose generator weights training starts from, "default" for the
            packaged ones, or None for random weights.
        ema_decay: decay of the moving average of the generator's weights.
        gradient_clip: maximum norm of each optimizer's gradients; 0 for none.
        accumulate: batches whose gradients are averaged for one step; iterations count batches.
        balance_every: iterations between measurements of each loss term's gradient on its own
            (`train/balance/...`); 0 for never.
        speed: options of memory, start-up time and speed; see `SpeedOptions`.
        max_iterations: iterations after which training ends.
        license: license of the weights, written into the checkpoint.
        trained_on: description of the training data, written into the checkpoint.

    Raises:
        UsageError: `sync_discriminator` is unknown.
    """

    sync_expert: str | Path | None = None
    sync_discriminator: Literal["frozen", "joint"] = "frozen"
    sync_arguments: Mapping[str, Any] = field(default_factory=dict)
    discriminator_penalty: float = 1e-4
    init_from: str | Path | None = None
    ema_decay: float = 0.996
    gradient_clip: float = 1.0
    accumulate: int = 1
    balance_every: int = 100
    speed: SpeedOptions | Mapping[str, bool] = field(default_factory=SpeedOptions)
    max_iterations: int = 20_000
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
    """Load or build the sync discriminator; return None if the options name none."""
    if options.sync_expert is not None:
        loaded = load_expert(options.sync_expert)
        if difference := loaded.spec.difference(spec):
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


def load_initial_weights(generator: LipSyncGenerator, path: str | Path) -> None:
    """Copy a checkpoint's weights into a generator."""
    # Conditioning starts from zero, so it may be missing from the checkpoint.
    conditioning = {
        name: value
        for name, value in generator.state_dict().items()
        if name.startswith(("emotion.", "pose."))
    }
    try:
        generator.load_state_dict({**conditioning, **load_generator(path).model.state_dict()})
    except RuntimeError as error:
        raise CheckpointError(
            f"init_from {path} holds another generator: give the model that it was trained with"
        ) from error
