"""The model's side of a prediction: source frames and speech to the mouth's fields, in batches.

Shape suffixes: N frames, D token dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import UsageError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import (
    as_tensor,
    masked_face,
    transform_points,
    warp_face,
)
from talkinghead.features.faces.head_pose import head_turn
from talkinghead.models.lipsync.decoder import ContextFeatures, GeneratorOutput, ReferenceFeatures
from talkinghead.predict.audio.articulation import articulate
from talkinghead.predict.audio.lip_prior import LipPrior
from talkinghead.predict.audio.token_stream import TokenStream
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.runtime.generator_backend import GeneratorBackend
from talkinghead.types import AVSpec, FloatArray

PRECISIONS = ("auto", "32", "16-mixed", "bf16-mixed")


def resolve_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"device={name} cannot be used here: choose auto, cpu, or cuda where there is a GPU"
        ) from error
    return device


def resolve_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The autocast type of a precision; None is full precision.

    Raises:
        UsageError: the precision is unknown, or this device has not got it.
    """
    if name not in PRECISIONS:
        raise UsageError(f"precision={name} is unknown: choose one of {', '.join(PRECISIONS)}")
    if name == "auto":
        if device.type != "cuda":
            return None
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if name == "16-mixed" and device.type == "cpu":
        raise UsageError(
            "precision=16-mixed needs a GPU, but the device is the CPU: choose precision=32"
        )
    return {"32": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}[name]


@dataclass
class GeneratedFrame:
    """A source frame and its new mouth: `fields` is None where it passes untouched.

    `previous_reference` is the same of the reference before, where that is still to be seen.
    """

    source: SourceFrame
    fields: MouthFields | None
    previous_reference: GeneratedFrame | None = None

    @classmethod
    def to_be(cls, source: SourceFrame) -> GeneratedFrame:
        """A frame whose mouths are not there yet."""
        before = source.with_previous_reference
        return cls(source, None, None if before is None else cls(before, None))


@dataclass
class _Encoded:
    """What a reference gives: its features, silence's token, a still picture's masked_face."""

    features: ReferenceFeatures
    silence: Tensor | None = None
    still: tuple[SourceFrame, ContextFeatures] | None = None


class MouthGenerator:
    """Runs the generator for one prediction: what does not change is encoded once."""

    def __init__(
        self,
        model: GeneratorBackend,
        spec: AVSpec,
        autocast: torch.dtype | None = None,
        chunk_frames: int = 25,
        articulation: float = 1.0,
        lip_prior: LipPrior | None = None,
    ) -> None:
        """`autocast`: None for full precision. `chunk_frames`: tokens encoded at once.

        `articulation`: how far the mouth moves, times what it does of itself; see `articulate`.
        `lip_prior`: see `TokenStream`.
        """
        self._model = model
        self._spec = spec
        self._device = model.device
        self._autocast = autocast
        self._articulation = articulation
        self.tokens = TokenStream(model, spec, chunk_frames, lip_prior)
        self._encoded: dict[Reference, _Encoded] = {}

    @torch.inference_mode()
    def generate(self, frames: list[SourceFrame]) -> Iterator[GeneratedFrame]:
        """The fields of consecutive frames, whose tokens must be there (`self.tokens.has`)."""
        generated = [GeneratedFrame.to_be(frame) for frame in frames]
        batches: dict[Reference, list[GeneratedFrame]] = {}
        for frame in chain.from_iterable((frame, frame.previous_reference) for frame in generated):
            if frame is not None and frame.source.reference is not None:
                batches.setdefault(frame.source.reference, []).append(frame)
        with self._mixed_precision():
            for reference, batch in batches.items():
                fields = self._fields([frame.source for frame in batch], reference)
                for frame, mouth in zip(batch, fields, strict=True):
                    frame.fields = mouth
        self._encoded = {reference: self._encoded[reference] for reference in batches}
        return iter(generated)

    @torch.inference_mode()
    def encode(self, frames: Iterable[SourceFrame]) -> list[SourceFrame]:
        """The same frames with all that `generate` would have to encode for them."""
        references: dict[Reference, Reference] = {}
        with self._mixed_precision():
            return [self._encode(frame, references) for frame in frames]

    def _encode(self, frame: SourceFrame, references: dict[Reference, Reference]) -> SourceFrame:
        if frame.reference is None or frame.transform is None:
            return frame
        features = self._features_of(references.get(frame.reference, frame.reference))
        reference = references.setdefault(
            frame.reference, replace(frame.reference, features=features)
        )
        face = self._faces([frame.image], [frame.transform])
        context = self._context_of(face, features, [frame])
        previous_reference = frame.previous_reference
        if (before := frame.with_previous_reference) is not None and previous_reference is not None:
            before = self._encode(before, references)
            assert before.reference is not None
            previous_reference = replace(
                previous_reference, reference=before.reference, context=before.context
            )
        return replace(
            frame, reference=reference, context=context, previous_reference=previous_reference
        )

    def _features_of(self, reference: Reference) -> ReferenceFeatures:
        if reference.features is not None:
            return reference.features
        face = self._faces([reference.image], [reference.transform])
        lips = transform_points(reference.lips, reference.transform)
        return self._model.encode_reference(face, torch.from_numpy(lips)[None].to(self._device))

    def _fields(self, batch: list[SourceFrame], reference: Reference) -> list[MouthFields]:
        encoded = self._encoded.get(reference)
        if encoded is None:
            encoded = self._encoded[reference] = _Encoded(self._features_of(reference))
        tokens_ND = self.tokens.at([frame.middle_s for frame in batch], encoded.features)
        if self._articulation != 1:
            if encoded.silence is None:
                encoded.silence = self._encode_silence(encoded.features)
            tokens_ND = articulate(self._model, tokens_ND, encoded.silence, self._articulation)
        context = self._encode_context(batch, encoded)
        return to_fields(self._model.decode(tokens_ND, encoded.features, context))

    def _encode_silence(self, reference: ReferenceFeatures) -> Tensor:
        """The token [D] of silence that has lasted, as this face's."""
        past, ahead = self._model.context_frames, self._model.lookahead_frames
        features = AudioFeatures(self._spec, self._model.input_features)
        window = features.silence(self._spec.mel_window).to(self._device)
        audio = window.expand(1, past + 1 + ahead, -1, -1)
        return self._model.encode_audio(audio, reference)[0, past]

    def _encode_context(self, batch: list[SourceFrame], encoded: _Encoded) -> ContextFeatures:
        """The masked_face of every frame's mouth, or one for all where the picture stays."""
        known = [frame.context for frame in batch if frame.context is not None]
        if len(known) == len(batch):
            return known[0] if all(c is known[0] for c in known) else _side_by_side(known)
        first = batch[0]
        still = all(
            frame.image is first.image and frame.transform is first.transform for frame in batch
        )
        if not still:
            transforms = [frame.transform for frame in batch if frame.transform is not None]
            faces = self._faces([frame.image for frame in batch], transforms)
            return self._context_of(faces, encoded.features, batch)
        if encoded.still is None or encoded.still[0].image is not first.image:
            assert first.transform is not None
            face = self._faces([first.image], [first.transform])
            encoded.still = first, self._context_of(face, encoded.features, [first])
        return encoded.still[1]

    def _context_of(
        self, faces: Tensor, features: ReferenceFeatures, frames: list[SourceFrame]
    ) -> ContextFeatures:
        around = masked_face(faces, self._spec)
        if not self._model.needs_head_pose:
            return self._model.encode_context(around, features)
        turns = torch.from_numpy(np.stack([_turn(frame) for frame in frames]))
        return self._model.encode_context(around, features, turns.to(self._device))

    def _faces(self, images: list, transforms: list[FloatArray]) -> Tensor:
        """Canonical faces: float32 [N, 3, face_size, face_size] in [0, 1], on the device."""
        size = self._spec.face_size
        faces = [warp_face(i, t, size) for i, t in zip(images, transforms, strict=True)]
        return as_tensor(np.stack(faces)).to(self._device)

    def _mixed_precision(self) -> AbstractContextManager[None]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._autocast)


def _side_by_side(contexts: list[ContextFeatures]) -> ContextFeatures:
    maps = zip(*(context.maps for context in contexts), strict=True)
    tokens = [context.token for context in contexts]
    return ContextFeatures(torch.cat(tokens), [torch.cat(stage) for stage in maps])


def _turn(frame: SourceFrame) -> FloatArray:
    """How far a head is turned from its reference's: degrees [3], 0 where it was not measured."""
    if frame.pose is None or frame.reference is None or frame.reference.pose is None:
        return np.zeros(3, np.float32)
    return head_turn(frame.pose, frame.reference.pose)


def to_fields(output: GeneratorOutput) -> list[MouthFields]:
    """A batch's tensors to each frame's arrays. The model's flow is in half widths of the box."""
    flow = output.flow.float().mul(0.5).permute(0, 2, 3, 1).cpu().numpy()
    rgb = output.rgb.float().permute(0, 2, 3, 1).cpu().numpy()
    mask = output.mask.float()[:, 0].cpu().numpy()
    return [
        MouthFields(np.ascontiguousarray(f), np.ascontiguousarray(r), m)
        for f, r, m in zip(flow, rgb, mask, strict=True)
    ]
