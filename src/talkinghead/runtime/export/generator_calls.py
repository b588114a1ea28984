"""Modules that wrap the calls of a generator for exporters, and example inputs of the calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from talkinghead.models.lipsync.decoder import ContextFeatures, ReferenceFeatures
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.runtime.export.verification import Sample

PER_FRAME_PREFIXES = ("masked_face", "head_turn", "tokens", "context")
"""Name prefixes of the inputs that hold one entry per frame."""


class GeneratorCall(nn.Module):
    """A module that wraps one call of a generator, with only tensors as inputs and outputs.

    `part` is one of `talkinghead.runtime.exported_generator.PARTS`.

    Attributes:
        inputs, outputs: names of the tensors, in order. An output of one part and an input of
            another with the same name are the same tensor.
    """

    def __init__(self, model: LipSyncGenerator, part: str) -> None:
        super().__init__()
        self.model = model
        self._call: Callable[..., tuple[Tensor, ...]] = getattr(self, f"_{part}")
        maps = [f"reference_map_{i}" for i in range(len(model.decoder.reference_maps))]
        context = ["context_token"]
        context += [f"context_map_{i}" for i in range(len(model.decoder.context_maps))]
        reference = ["reference_token", "reference_mouth", "reference_lips"]
        emotion = ["emotion"] if model.emotion else []
        head_turn = ["head_turn"] if model.needs_head_pose else []
        self.inputs, self.outputs = {
            "encode_reference": (
                ["face", "lips", *emotion],
                [*reference, "reference_masked_face", *maps],
            ),
            "encode_context": (["masked_face", "reference_masked_face", *head_turn], context),
            "encode_audio": (["audio", "reference_token"], ["tokens"]),
            "decode": (
                ["tokens", *reference, *maps, *context],
                ["mouth", "rgb", "warped", "mask", "flow", "sides", "points"],
            ),
        }[part]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the part; `ExportedGenerator` documents the shapes."""
        return self._call(*inputs)

    def _encode_reference(
        self, face: Tensor, lips: Tensor, emotion: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        features = self.model.encode_reference(face, lips, emotion)
        return features.token, features.mouth, features.lips, features.masked_face, *features.maps

    def _encode_context(
        self, masked_face: Tensor, reference: Tensor, head_turn: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        features = _partial_reference(masked_face=reference)
        context = self.model.encode_context(masked_face, features, head_turn)
        return context.token, *context.maps

    def _encode_audio(self, audio: Tensor, token: Tensor) -> tuple[Tensor, ...]:
        return (self.model.encode_audio(audio, _partial_reference(token=token)),)

    def _decode(
        self, tokens: Tensor, token: Tensor, mouth: Tensor, lips: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(self.model.decoder.reference_maps)
        reference = _partial_reference(token=token, mouth=mouth, lips=lips, maps=list(rest[:count]))
        context = ContextFeatures(rest[count], list(rest[count + 1 :]))
        output = self.model.decode(tokens, reference, context)
        images = output.mouth, output.rgb, output.warped, output.mask
        return *images, output.flow, output.sides, output.points


def _partial_reference(**features: Any) -> ReferenceFeatures:
    """Return reference features with only the given fields; all others are empty."""
    unused = torch.empty(0)
    fields = dict.fromkeys(("token", "mouth", "lips", "masked_face"), unused)
    return ReferenceFeatures(**{**fields, "maps": [], **features})


@torch.inference_mode()
def example_inputs(
    model: LipSyncGenerator, sample: Sample, num_frames: int
) -> dict[str, tuple[Tensor, ...]]:
    """Return the inputs of each part for the first frames of a sample."""
    past = model.context_frames
    masked_face = sample.masked_face[:num_frames]
    head_turn = [sample.head_turn[:num_frames]] if model.needs_head_pose else []
    audio = sample.audio[:, : past + num_frames + model.lookahead_frames]
    reference = model.encode_reference(sample.face, sample.lips)
    context = model.encode_context(masked_face, reference, *head_turn)
    tokens = model.encode_audio(audio, reference)[0, past : past + num_frames]
    emotion = [torch.zeros(1, dtype=torch.long)] if model.emotion else []
    references = (reference.token, reference.mouth, reference.lips, *reference.maps)
    inputs = {
        "encode_reference": (sample.face, sample.lips, *emotion),
        "encode_context": (masked_face, reference.masked_face, *head_turn),
        "encode_audio": (audio, reference.token),
        "decode": (tokens, *references, context.token, *context.maps),
    }
    # Clone the tensors, because exporters refuse tensors made in inference mode. Use the contiguous
    # format, because ExecuTorch keeps the memory format of the example inputs, and face crops are
    # channels-last.
    order = torch.contiguous_format
    return {p: tuple(t.clone(memory_format=order) for t in ts) for p, ts in inputs.items()}
