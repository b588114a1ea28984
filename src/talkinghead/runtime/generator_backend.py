"""The interface between the prediction code and the generators of all runtimes.

Shape suffixes: N frames, W audio windows, D token dimension.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from talkinghead.models.lipsync.decoder import ContextFeatures, GeneratorOutput, ReferenceFeatures


class GeneratorBackend(Protocol):
    """Protocol of a generator, implemented by `LipSyncGenerator` and `ExportedGenerator`.

    `LipSyncGenerator` documents the shapes of the calls. To support another runtime, add a loader
    to `talkinghead.runtime.inference_runtimes`.
    """

    @property
    def context_frames(self) -> int:
        """Number of audio windows before a frame on which the frame's token depends."""

    @property
    def lookahead_frames(self) -> int:
        """Number of audio windows after a frame on which the frame's token depends."""

    @property
    def input_features(self) -> tuple[str, ...]:
        """Names of the audio features in the rows of the audio windows, in order."""

    @property
    def needs_head_pose(self) -> bool:
        """Return whether `encode_context` uses `head_turn`."""

    @property
    def max_mouth_scale(self) -> int:
        """Largest ratio of a reference face's size to `face_size`; see `encode_reference`."""

    @property
    def device(self) -> torch.device:
        """Device on which the inputs must be."""

    def encode_reference(
        self, reference_face: Tensor, reference_lips: Tensor, emotion: Tensor | None = None, /
    ) -> ReferenceFeatures:
        """Encode a reference face; call this method once per reference."""

    def encode_context(
        self, masked_face: Tensor, reference: ReferenceFeatures, head_turn: Tensor | None = None, /
    ) -> ContextFeatures:
        """Encode the masked faces of N frames."""

    def encode_audio(self, audio: Tensor, reference: ReferenceFeatures, /) -> Tensor:
        """Encode audio windows as tokens."""

    def decode_lip_motion(self, tokens: Tensor, /) -> Tensor:
        """Return the lip motion that tokens encode, relative to closed lips."""

    def set_lip_motion(self, tokens: Tensor, lips: Tensor, blend_weight: float = 1.0, /) -> Tensor:
        """Return a copy of the tokens that encodes the given lip motion."""

    def decode(
        self, tokens: Tensor, reference: ReferenceFeatures, context: ContextFeatures, /
    ) -> GeneratorOutput:
        """Decode tokens into mouth images."""
