"""Options of the generator's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from talkinghead.errors import UsageError
from talkinghead.training.parallel.acceleration import SpeedOptions


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
