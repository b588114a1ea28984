"""Whole clips through a generator, in the canonical face: what evaluation measures.

No tracking or encoding comes between, so that the scores are the model's own; `shown` is what the
product's stabiliser and renderer make of them.

Shape suffixes: T video frames, C feature rows, M mel frames, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import UsageError
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.alignment import (
    as_tensor,
    lips_at,
    masked_face,
    mouth_crop,
    paste_mouth,
)
from talkinghead.features.faces.image_averaging import average_onto, nearest_lips
from talkinghead.media.timing import frame_time_s
from talkinghead.models.lipsync.decoder import ContextFeatures, ReferenceFeatures
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.predict.audio.lip_prior import LipPrior, predict_lip_motion
from talkinghead.predict.compositing.compositor import Compositor
from talkinghead.predict.compositing.renderers import LaplacianRenderer
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.mouth_generator import GeneratedFrame, to_fields
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.types import AVSpec, FloatArray, UInt8Array

Mode = Literal["video", "still"]
CHUNK_FRAMES = 25


@dataclass(frozen=True)
class EncodedClip:
    """A clip as the generator sees it before anybody speaks; several sounds can be put to it.

    `faces` uint8 [T, H, W, 3] are what mouths are pasted into; `reference_face` uint8 [H, W, 3] has
    the lips `reference_lips` float32 [20, 2], canonical pixels.
    """

    faces: UInt8Array
    reference_face: UInt8Array
    reference_lips: FloatArray
    reference: ReferenceFeatures
    contexts: list[ContextFeatures]


@dataclass(frozen=True)
class GeneratedClip:
    """`mouths` float [T, 3, mouth, mouth] in [0, 1]; `faces` uint8 [T, face, face, 3] hold them.

    `shown` uint8 [T, face, face, 3] are the faces as `talkinghead predict` would show them.
    """

    mouths: Tensor
    faces: UInt8Array
    shown: UInt8Array


class ClipGenerator:
    """Rebuilds clips in the canonical face.

    Args:
        model: in evaluation mode.
        spec: the model's.
        mode: "video" (the current frames, masked, with the reference's mouth) or "still" (the
            reference itself in every frame, as for a photo).
        reference_frame: the frame of the clip that is the reference. A video's is averaged with
            those of the second from it on that have the same lips, as `talkinghead predict` does.
        lip_prior: who else tells how lips move.

    Raises:
        UsageError: the mode is another, or the lip_prior does not work at the spec's rates.
    """

    def __init__(
        self,
        model: LipSyncGenerator,
        spec: AVSpec,
        mode: Mode = "video",
        reference_frame: int = 0,
        lip_prior: LipPrior | None = None,
    ) -> None:
        if mode not in ("video", "still"):
            raise UsageError(f"evaluation: mode must be video or still, got {mode!r}")
        self.model = model
        self.spec = spec
        self.mode = mode
        self.reference_frame = reference_frame
        self.lip_prior = lip_prior

    @torch.inference_mode()
    def encode(self, faces: UInt8Array, lips: FloatArray) -> EncodedClip:
        """All that does not depend on the sound.

        Args:
            faces: uint8 [T, H, W, 3] RGB, a clip's canonical faces.
            lips: float [T, 20, 2], where they are, NaN where unknown.
        """
        chosen = min(self.reference_frame, len(faces) - 1)
        known = lips_at(lips, chosen)
        reference = faces[chosen][None]
        if self.mode == "video":
            reference = self._averaged(faces, lips, chosen)[None]
        targets = np.repeat(reference, len(faces), axis=0) if self.mode == "still" else faces
        encoded = self.model.encode_reference(
            self._tensor(reference), torch.from_numpy(known)[None].to(self.model.device)
        )
        contexts = [
            self.model.encode_context(
                masked_face(self._tensor(targets[start:stop]), self.spec), encoded
            )
            for start, stop in _chunks(len(targets))
        ]
        return EncodedClip(targets, reference[0], known, encoded, contexts)

    @torch.inference_mode()
    def speak(
        self,
        clip: EncodedClip,
        features: Tensor,
        samples: FloatArray | None = None,
        told: Tensor | None = None,
    ) -> GeneratedClip:
        """The clip's face saying something.

        Args:
            clip: from `encode`.
            features: float [C, M], the sound from the clip's first frame on; silence follows it.
            samples: float32 [num_samples], the same sound for the lip_prior, where there is one.
            told: float [T, 20, 2], how the lips move (see `lip_motion`), instead of the lip_prior's
                opinion; NaN leaves it to the model.
        """
        num_frames = len(clip.faces)
        tokens = self._tokens(clip.reference, features, num_frames)
        if told is not None:
            tokens = self.model.set_lip_motion(tokens, told.to(tokens))
        elif self.lip_prior is not None and samples is not None:
            tokens = self._listen(tokens, samples, self.lip_prior)
        mouths, faces, fields = [], [], []
        for (start, stop), context in zip(_chunks(num_frames), clip.contexts, strict=True):
            output = self.model.decode(tokens[start:stop], clip.reference, context)
            mouth = output.mouth.float().cpu().clamp(0, 1)
            pasted = paste_mouth(as_tensor(clip.faces[start:stop]), mouth, self.spec)
            mouths.append(mouth)
            faces.append(_to_images(pasted))
            fields += to_fields(output)
        shown = self._composite(clip, fields)
        return GeneratedClip(torch.cat(mouths), np.concatenate(faces), shown)

    def show_reference(self, clip: EncodedClip) -> UInt8Array:
        """The reference's own mouth shown in every frame: uint8 [T, face, face, 3]."""
        size = self.spec.mouth_size
        still = MouthFields(
            np.zeros((size, size, 2), np.float32),
            np.zeros((size, size, 3), np.float32),
            np.zeros((size, size), np.float32),
        )
        return self._composite(clip, [still] * len(clip.faces))

    def _averaged(self, faces: UInt8Array, lips: FloatArray, chosen: int) -> UInt8Array:
        second = slice(chosen, chosen + round(self.spec.fps))
        near = nearest_lips(lips[second], 0)
        still = np.eye(2, 3, dtype=np.float32)
        return average_onto(faces[chosen], ((faces[second][i], still) for i in near))

    def _composite(self, clip: EncodedClip, fields: Sequence[MouthFields]) -> UInt8Array:
        compositor = Compositor(LaplacianRenderer(), self.spec)
        still = np.eye(2, 3, dtype=np.float32)
        reference = Reference(clip.reference_face, still, clip.reference_lips)
        shown = []
        for number, (face, field) in enumerate(zip(clip.faces, fields, strict=True)):
            time_s = frame_time_s(number, self.spec.fps)
            source = SourceFrame(face, time_s, 1 / self.spec.fps, reference.transform, reference)
            shown.append(compositor.composite(GeneratedFrame(source, field))[0])
        return np.stack(shown)

    def _tokens(self, reference: ReferenceFeatures, features: Tensor, num_frames: int) -> Tensor:
        """One token a frame, [T, D], with the model's past and look-ahead around them."""
        before, after = self.model.context_frames, self.model.lookahead_frames
        frames = range(-before, num_frames + after)
        names = self.model.input_features
        windows = mel_windows(features, frames, self.spec.fps, self.spec, names)
        windows = windows.to(reference.token.device)
        return self.model.encode_audio(windows[None], reference)[0, before : before + num_frames]

    def _listen(self, tokens: Tensor, samples: FloatArray, lip_prior: LipPrior) -> Tensor:
        """Tokens [T, D], moved to where the lip_prior hears the lips."""
        missing = math.ceil(len(tokens) * self.spec.sample_rate / self.spec.fps) - len(samples)
        heard = np.pad(samples, (0, max(0, missing)))
        told = predict_lip_motion(lip_prior, heard, self.spec)[: len(tokens)]
        return self.model.set_lip_motion(tokens, torch.from_numpy(told).to(tokens), lip_prior.share)

    def _tensor(self, faces: UInt8Array) -> Tensor:
        return as_tensor(faces).to(next(self.model.parameters()).device)


def real_mouths(faces: UInt8Array, spec: AVSpec) -> Tensor:
    """The mouths of canonical faces uint8 [T, H, W, 3]: float [T, 3, mouth, mouth] in [0, 1]."""
    chunks = _chunks(len(faces))
    return torch.cat([mouth_crop(as_tensor(faces[start:stop]), spec) for start, stop in chunks])


def _chunks(num_frames: int) -> Iterator[tuple[int, int]]:
    """Bounds of stretches short enough for memory."""
    for start in range(0, num_frames, CHUNK_FRAMES):
        yield start, min(start + CHUNK_FRAMES, num_frames)


def _to_images(faces: Tensor) -> UInt8Array:
    """Float [T, 3, H, W] in [0, 1] to uint8 [T, H, W, 3]."""
    return (faces * 255).round_().to(torch.uint8).movedim(-3, -1).contiguous().numpy()
