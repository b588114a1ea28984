"""Generation of whole clips in the canonical face, with the mouth generator of `predict`.

Shape suffixes: T video frames, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import Literal, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkinghead.errors import UsageError
from talkinghead.evaluation.clip_audio import ClipAudio
from talkinghead.evaluation.metrics import opening_series
from talkinghead.features.faces.alignment import as_tensor, lips_at, mouth_crop, paste_mouth
from talkinghead.features.faces.head_pose import head_pose
from talkinghead.features.faces.image_averaging import average_onto, nearest_lips
from talkinghead.media.decoding.video_image import to_array
from talkinghead.media.timing import frame_time_s
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.models.lipsync.lip_seam import warp_sides
from talkinghead.predict.audio.lip_priors.automatic_prior import resolve_lip_prior
from talkinghead.predict.compositing.compositor import Compositor
from talkinghead.predict.compositing.renderers import LaplacianRenderer
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.mouth_generator import GeneratedFrame, MouthGenerator
from talkinghead.predict.options import PredictOptions
from talkinghead.predict.source.reference_policy import add_references
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.types import AVSpec, FloatArray, UInt8Array

Generation = Literal["product", "model"]
Mode = Literal["video", "still"]

# Opening of frames without landmarks: large, so that they never become references.
_UNKNOWN_OPENING = 10.0
_IDENTITY = np.eye(2, 3, dtype=np.float32)
_CHUNK_FRAMES = 25


@dataclass(frozen=True)
class EncodedClip:
    """Encodings of a clip that do not depend on the audio.

    Attributes:
        frames: source frames with encoded references and contexts.
        reference_frames: index of the frame that supplies each frame's reference, int [T].
    """

    frames: list[SourceFrame]
    reference_frames: list[int]


@dataclass(frozen=True)
class GeneratedClip:
    """A generated clip, as scored and as shown in the report.

    Attributes:
        mouths: the scored mouths, float [T, 3, mouth, mouth] in [0, 1].
        faces: the scored faces, uint8 [T, face, face, 3].
        shown: the faces after stabilising and compositing; equal to `faces` for the product.
    """

    mouths: Tensor
    faces: UInt8Array
    shown: UInt8Array


class ClipGenerator:
    """A generator of whole clips from aligned faces and any audio.

    With `generation="product"`, audio, references, lip motion and compositing are processed as in
    `talkinghead predict`. With "model", the generator is measured alone: with the features stored
    in the corpus, one reference per clip, and mouths without stabiliser and compositing.

    Args:
        model: generator in evaluation mode.
        spec: the model's AVSpec.
        mode: "video" (the current frames, masked) or "still" (one frame throughout, as for a
            photo).
        reference_frame: index of the reference frame; not used in product videos, where the
            reference policy chooses. A video's reference is averaged with frames of similar lips.
        generation: "product" or "model".
        options: articulation, lip prior and compositing; the others are not used. By default
            articulation 1 and no lip prior. "model" has no occlusion guard.

    Raises:
        UsageError: `mode` or `generation` is unknown, or the lip prior's rates differ from the
            spec's.
    """

    def __init__(
        self,
        model: LipSyncGenerator,
        spec: AVSpec,
        mode: Mode = "video",
        reference_frame: int = 0,
        generation: Generation = "model",
        options: PredictOptions | None = None,
    ) -> None:
        if mode not in ("video", "still"):
            raise UsageError(f"evaluation: mode must be video or still, got {mode!r}")
        if generation not in ("product", "model"):
            raise UsageError(f"evaluation: generation must be product or model, got {generation!r}")
        self.model = model
        self.spec = spec
        self.mode = mode
        self.reference_frame = reference_frame
        self.is_product = generation == "product"
        options = options or PredictOptions(articulation=1.0, lip_prior=None)
        self.options = options
        self.lip_prior = resolve_lip_prior(options.lip_prior)
        self._mouth_generator(1)  # Checks the rates of the lip prior.

    def encode(
        self,
        faces: UInt8Array,
        lips: FloatArray,
        points: FloatArray | None = None,
        topology: str = "mesh468",
    ) -> EncodedClip:
        """Encode everything that does not depend on the audio.

        Args:
            faces: uint8 [T, H, W, 3] RGB, canonical faces.
            lips: lip landmarks, float [T, 20, 2], NaN where unknown.
            points: all landmarks, float [T, P, 2], NaN where unknown; needed for product videos.
            topology: topology of the landmarks.
        """
        generator = self._mouth_generator(len(faces))
        if self.is_product and self.mode == "video" and points is not None:
            frames = self._product_frames(faces, lips, points, topology)
            return EncodedClip(generator.encode(frames), _reference_frames(frames))
        chosen = min(self.reference_frame, len(faces) - 1)
        is_still = self.mode == "still"
        image = faces[chosen] if is_still else self._averaged(faces, lips, chosen)
        reference = Reference(image, _IDENTITY, lips_at(lips, chosen))
        (first,) = generator.encode([self._frame(image, 0, reference)])
        frames = [
            replace(self._frame(image if is_still else face, number), reference=first.reference)
            for number, face in enumerate(faces)
        ]
        if is_still:
            frames = [replace(frame, context=first.context) for frame in frames]
        return EncodedClip(frames, [chosen] * len(faces))

    @torch.inference_mode()
    def generate(self, clip: EncodedClip, audio: ClipAudio) -> GeneratedClip:
        """Generate the clip from audio, which is padded with silence to the clip's duration."""
        num_frames = len(clip.frames)
        generator = self._mouth_generator(num_frames)
        num_samples = math.ceil(num_frames * self.spec.sample_rate / self.spec.fps)
        samples = np.pad(audio.samples, (0, max(0, num_samples - len(audio.samples))))
        stored = None if self.is_product else audio.select(self.model.input_features)
        generator.tokens.push(samples, stored)
        generator.tokens.finish()
        chunks = [list(generator.generate(clip.frames[chunk])) for chunk in _chunks(num_frames)]
        shown = self._composite(chain.from_iterable(chunks))
        if self.is_product:
            return GeneratedClip(real_mouths(shown, self.spec), shown, shown)
        mouths, faces = zip(*map(self._paste, chunks), strict=True)
        return GeneratedClip(torch.cat(mouths), np.concatenate(faces), shown)

    def copy_reference(self, clip: EncodedClip) -> UInt8Array:
        """Composite the unchanged reference mouth into each frame: uint8 [T, face, face, 3]."""
        shape = self.spec.mouth_size, self.spec.mouth_size
        flow, rgb = np.zeros((*shape, 2), np.float32), np.zeros((*shape, 3), np.float32)
        unchanged = MouthFields(flow, rgb, np.zeros(shape, np.float32))
        return self._composite(GeneratedFrame(frame, unchanged) for frame in clip.frames)

    def _mouth_generator(self, num_frames: int) -> MouthGenerator:
        return MouthGenerator(
            self.model,
            self.spec,
            chunk_frames=num_frames,
            articulation=self.options.articulation,
            lip_prior=self.lip_prior,
        )

    def _frame(
        self, image: UInt8Array, number: int, reference: Reference | None = None
    ) -> SourceFrame:
        time_s = frame_time_s(number, self.spec.fps)
        return SourceFrame(image, time_s, 1 / self.spec.fps, _IDENTITY, reference)

    def _product_frames(
        self, faces: UInt8Array, lips: FloatArray, points: FloatArray, topology: str
    ) -> list[SourceFrame]:
        """Return the frames with the landmarks and references that `predict` would use."""
        frames = []
        for number, opening in enumerate(opening_series(points, topology)):
            frame = replace(self._frame(faces[number], number), lips=lips_at(lips, number))
            frame = replace(frame, opening=_UNKNOWN_OPENING)
            if np.isfinite(opening):
                pose = head_pose(points[number], topology)
                outline = cv2.convexHull(points[number])[:, 0]
                frame = replace(frame, opening=float(opening), pose=pose, outline=outline)
            frames.append(frame)
        return list(add_references(frames, self.spec, self.spec.fps))

    def _averaged(self, faces: UInt8Array, lips: FloatArray, chosen: int) -> UInt8Array:
        """Return a frame averaged with frames of the next second that have similar lips."""
        second = slice(chosen, chosen + round(self.spec.fps))
        similar = nearest_lips(lips[second], 0)
        return average_onto(faces[chosen], ((faces[second][i], _IDENTITY) for i in similar))

    def _paste(self, frames: Sequence[GeneratedFrame]) -> tuple[Tensor, UInt8Array]:
        """Return the generator's mouths and the faces that contain them, without compositing."""
        fields = [frame.fields for frame in frames if frame.fields is not None]
        reference = frames[0].source.reference
        assert reference is not None
        assert reference.features is not None
        sides = torch.from_numpy(
            np.stack([f.sides for f in fields if f.sides is not None])
        ).permute(0, 3, 1, 2)
        lips = torch.from_numpy(np.stack([f.lips for f in fields if f.lips is not None]))
        rgb = torch.from_numpy(np.stack([f.rgb for f in fields])).permute(0, 3, 1, 2)
        mask = torch.from_numpy(np.stack([f.mask for f in fields]))[:, None]
        # `warp_sides` takes half widths of the mouth box; the fields are in widths.
        warped = warp_sides(reference.features.mouth.float().cpu(), 2 * sides, 2 * lips - 1)
        mouths = (mask * rgb + (1 - mask) * warped).clamp(0, 1)
        mouths = F.adaptive_avg_pool2d(mouths, self.spec.mouth_size)  # They may be twice as large.
        faces = as_tensor(np.stack([to_array(frame.source.image) for frame in frames]))
        pasted = (paste_mouth(faces, mouths, self.spec) * 255).round_().to(torch.uint8)
        return mouths, pasted.movedim(-3, -1).contiguous().numpy()

    def _composite(self, frames: Iterable[GeneratedFrame]) -> UInt8Array:
        options = self.options
        guard = options.occlusion_guard and self.is_product
        renderer = options.renderer or LaplacianRenderer()
        compositor = Compositor(renderer, self.spec, options.stabilise, guard)
        return np.stack([compositor.composite(frame)[0] for frame in frames])


def real_mouths(faces: UInt8Array, spec: AVSpec) -> Tensor:
    """Return the mouths [T, 3, mouth, mouth] in [0, 1] of canonical faces uint8 [T, H, W, 3]."""
    return torch.cat([mouth_crop(as_tensor(faces[chunk]), spec) for chunk in _chunks(len(faces))])


def _chunks(num_frames: int) -> list[slice]:
    """Return slices of at most `_CHUNK_FRAMES` frames, to bound memory use."""
    return [slice(n, n + _CHUNK_FRAMES) for n in range(0, num_frames, _CHUNK_FRAMES)]


def _reference_frames(frames: Sequence[SourceFrame]) -> list[int]:
    """Return, for each frame, the index of the frame that its reference was made from."""
    numbers = {frame.time_s: number for number, frame in enumerate(frames)}
    references = [frame.reference for frame in frames if frame.reference is not None]
    return [numbers[cast(Fraction, reference.time_s)] for reference in references]
