"""Networks that training starts from: the sync discriminator and the generator's first weights."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from talkinghead.errors import CheckpointError, UsageError
from talkinghead.models.checkpoint import EXPERT, build, load_expert, load_generator
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.training.gan_options import GANOptions
from talkinghead.types import AVSpec


def build_sync_discriminator(
    options: GANOptions, spec: AVSpec, generator: LipSyncGenerator
) -> SyncDiscriminator | None:
    """Load or build the sync discriminator; return None if the options ask for none.

    Raises:
        CheckpointError: the expert's checkpoint is unusable or was made for another AVSpec.
        UsageError: it needs audio features that the generator does not use.
    """
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
    """Copy a checkpoint's weights into a generator.

    Raises:
        CheckpointError: the checkpoint is unusable or holds a generator of another shape.
    """
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
