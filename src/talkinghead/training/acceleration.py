"""What makes a step quicker or smaller, by choice: which of it pays depends on the machine."""

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
    """How the generator is run in training; the weights and their names stay the same.

    Attributes:
        channels_last: convolutions' weights with the channels innermost, as GPUs' tensor cores like
            them.
        compile: `torch.compile`, which needs a C++ compiler and some minutes at the start.
        checkpoint_activations: the face encoder's and the decoder's stages and the transformer's
            layers are computed again in the backward pass in place of being kept: less memory for
            a third more work.

    Paper: Chen et al., "Training deep nets with sublinear memory cost", 2016, arXiv:1604.06174.
    """

    channels_last: bool = False
    compile: bool = False
    checkpoint_activations: bool = False

    def apply(self, generator: LipSyncGenerator) -> None:
        """Changes a generator in place.

        Raises:
            DependencyError: `compile` without a compiler.
        """
        if self.channels_last:
            generator.to(memory_format=torch.channels_last)
        if self.checkpoint_activations:
            for part in _parts(generator):
                part.forward = partial(checkpoint, part.forward, use_reentrant=False)
        if self.compile:
            _require_compiler()
            generator.compile()


def _parts(generator: LipSyncGenerator) -> list[nn.Module]:
    """What keeps much between the passes, and is called with tensors alone."""
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
