"""Options that trade memory, start-up time and speed of training; the results stay the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from talkinghead.errors import DependencyError
from talkinghead.models.lipsync.generator import LipSyncGenerator


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
        """Apply the options to a generator in place.

        Raises:
            DependencyError: `compile` without a compiler.
        """
        if self.channels_last:
            generator.to(memory_format=torch.channels_last)
        if self.checkpoint_activations:
            for part in _checkpointed_parts(generator):
                part.forward = partial(checkpoint, part.forward, use_reentrant=False)
        if self.compile:
            _require_compiler()
            generator.compile()


def _checkpointed_parts(generator: LipSyncGenerator) -> list[nn.Module]:
    """Return the modules with large activations, which take only tensors."""
    return [
        generator.face_encoder.backbone,
        generator.context_encoder,
        *generator.transformer.layers,
        *generator.decoder.stages,
    ]


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
