"""Generate mouth fields from source frames and speech, in batches.

Shape suffixes: N frames, D token dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import (
    as_tensor,
    enlarge_canonical,
    masked_face,
    transform_points,
    transform_scale,
    warp_face,
)
from talkinghead.features.faces.head_pose import head_turn
from talkinghead.models.lipsync.decoder import ContextFeatures, GeneratorOutput, ReferenceFeatures
from talkinghead.predict.audio.audio_source import SpeechChunks
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.predict.audio.phonemes import PhonemeTrack
from talkinghead.predict.audio.speaker_style import SpeakerStyle
from talkinghead.predict.audio.token_stream import TokenStream, articulate
from talkinghead.predict.audio.visemes import MAX_REACH_S, constrain_lips, viseme_weights
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.predict.source.head.expression.emotion_track import EmotionTrack
from talkinghead.predict.source.head.photo_animation import HeadCue
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.runtime.generator_backend import GeneratorBackend
from talkinghead.types import AVSpec, FloatArray

_MAX_ENLARGEMENT = 1.5
"""Ratio of the mouth's size in the source to that in the output of the model, above which the model
generates a larger image."""


@dataclass
class GeneratedFrame:
    """A source frame and its generated mouth.

    Attributes:
        source: the source frame.
        fields: the mouth; None leaves the frame unchanged.
        previous_reference: the same frame generated with the previous reference, during a
            transition.
        cue: prosody and emotion of the speech, which move heads and faces.
    """

    source: SourceFrame
    fields: MouthFields | None = None
    previous_reference: GeneratedFrame | None = None
    cue: HeadCue = field(default_factory=HeadCue)


@dataclass
class _EncodedReference:
    """Cached encodings of a reference: features, silence token [D], context of a still image."""

    features: ReferenceFeatures
    silence: Tensor | None = None
    still: tuple[SourceFrame, ContextFeatures] | None = None


class MouthGenerator:
    """A generator for one prediction or stream that encodes unchanged inputs only once.

    Args:
        model: the generator.
        spec: its AVSpec.
        autocast: dtype of mixed precision, None for full precision.
        chunk_frames: number of tokens that are encoded at once.
        articulation: scale of the lip motion relative to silence (see `articulate`).
        lip_prior: see `TokenStream`.
        style: style of the lip motion.
        phonemes: phonemes of the speech; None makes an empty track.
        uses_phonemes: whether the phonemes constrain the lips (see `visemes.py`).
        emotions: emotions of the speech; None makes an empty track.

    Attributes:
        tokens: the audio tokens; push speech here before `generate`.
        phonemes: the phonemes; add those of the speech before `generate`.
        emotions: the emotions, in the same way.
        articulation: may be changed between calls of `generate`.
    """

    def __init__(
        self,
        model: GeneratorBackend,
        spec: AVSpec,
        autocast: torch.dtype | None = None,
        chunk_frames: int = 25,
        articulation: float = 1.0,
        lip_prior: LipPrior | None = None,
        style: SpeakerStyle | None = None,
        phonemes: PhonemeTrack | None = None,
        uses_phonemes: bool = True,
        emotions: EmotionTrack | None = None,
    ) -> None:
        self._style = style or SpeakerStyle()
        self._model = model
        self._spec = spec
        self._device = model.device
        self._autocast = autocast
        self.articulation = articulation
        self.tokens = TokenStream(model, spec, chunk_frames, lip_prior)
        self.phonemes = PhonemeTrack() if phonemes is None else phonemes
        self.emotions = EmotionTrack() if emotions is None else emotions
        self._uses_phonemes = uses_phonemes
        self._encoded: dict[Reference, _EncodedReference] = {}
        # The canonical faces of the current batch.
        self._warped: dict[tuple[int, int], tuple[Tensor, Any, FloatArray]] = {}

    @torch.inference_mode()
    def generate(self, frames: list[SourceFrame]) -> Iterator[GeneratedFrame]:
        """Generate the mouths of consecutive frames, whose tokens must be available."""
        generated = [GeneratedFrame(frame) for frame in frames]
        for frame in generated:
            if (before := frame.source.with_previous_reference) is not None:
                frame.previous_reference = GeneratedFrame(before)
        batches: dict[Reference, list[GeneratedFrame]] = {}
        for mouth in chain.from_iterable((frame, frame.previous_reference) for frame in generated):
            if mouth is not None and mouth.source.reference is not None:
                batches.setdefault(mouth.source.reference, []).append(mouth)
        with self._mixed_precision():
            for reference, batch in batches.items():
                fields = self._fields([frame.source for frame in batch], reference)
                for mouth, mouth_fields in zip(batch, fields, strict=True):
                    mouth.fields = mouth_fields
        self._encoded = {reference: self._encoded[reference] for reference in batches}
        self._warped.clear()
        for frame in generated:
            if frame.source.animation is not None:
                time_s = float(frame.source.middle_s)
                gesture = self.tokens.speech_motion.at(time_s)
                frame.cue = HeadCue(gesture, self.emotions.at(time_s))
        if frames:
            self.tokens.drop_before(frames[0].middle_s)
            self.tokens.speech_motion.drop_before(float(frames[0].time_s))
            self.emotions.drop_before(float(frames[0].time_s))
            self.phonemes.drop_before(float(frames[0].time_s) - MAX_REACH_S)
        return iter(generated)

    @torch.inference_mode()
    def lip_motion(
        self, times_s: Sequence[Fraction], reference: Reference
    ) -> tuple[FloatArray, FloatArray]:
        """Return the lip motion of a reference's mouth at increasing times, without rendering.

        Returns:
            The motion [len(times_s), 20, 2], and the motion of silence [20, 2]; see
            `LipSyncGenerator.decode_lip_motion`.
        """
        with self._mixed_precision():
            encoded = _EncodedReference(self._features_of(reference))
            tokens_ND = self._change_motion(self.tokens.at(times_s, encoded.features), encoded)
            tokens_ND = self._constrain(tokens_ND, encoded, times_s, 1 / self._spec.fps)
            motions = map(self._model.decode_lip_motion, (tokens_ND, self._silence(encoded)))
            motion, rest = (lips.float().cpu().numpy() for lips in motions)
        return motion, rest

    @torch.inference_mode()
    def encode(self, frames: Iterable[SourceFrame]) -> list[SourceFrame]:
        """Return the frames with encoded references and contexts, which speed up `generate`."""
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
        context = self._context_of([frame], features)
        self._warped.clear()
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
        side_px = self._spec.mouth_side / transform_scale(reference.transform)
        needed = math.ceil(side_px / (_MAX_ENLARGEMENT * self._spec.mouth_size))
        scale = min(needed, self._model.max_mouth_scale)
        transform = enlarge_canonical(reference.transform, scale)
        face = self._faces([reference.image], [transform], scale)
        lips = transform_points(reference.lips, reference.transform)
        return self._model.encode_reference(face, torch.from_numpy(lips)[None].to(self._device))

    def _fields(self, batch: list[SourceFrame], reference: Reference) -> list[MouthFields]:
        if (encoded := self._encoded.get(reference)) is None:
            encoded = self._encoded[reference] = _EncodedReference(self._features_of(reference))
        tokens_ND = self.tokens.at([frame.middle_s for frame in batch], encoded.features)
        tokens_ND = self._change_motion(tokens_ND, encoded)
        times_s = [frame.middle_s for frame in batch]
        tokens_ND = self._constrain(tokens_ND, encoded, times_s, batch[0].duration_s)
        context = self._encode_context(batch, encoded)
        output = self._model.decode(tokens_ND, encoded.features, context)
        return _to_fields(output, self._spec)

    def _change_motion(self, tokens_ND: Tensor, encoded: _EncodedReference) -> Tensor:
        """Apply the articulation and the style to the lip motion of tokens."""
        if self.articulation == 1 and self._style.is_neutral:
            return tokens_ND
        silence = self._silence(encoded)
        if self.articulation != 1:
            tokens_ND = articulate(self._model, tokens_ND, silence, self.articulation)
        if self._style.is_neutral:
            return tokens_ND
        rest = self._model.decode_lip_motion(silence)
        lips = self._style.apply(self._model.decode_lip_motion(tokens_ND), rest)
        return self._model.set_lip_motion(tokens_ND, lips)

    def _constrain(
        self,
        tokens_ND: Tensor,
        encoded: _EncodedReference,
        times_s: Sequence[Fraction],
        frame_s: Fraction,
    ) -> Tensor:
        """Constrain the lip motion of tokens by the phonemes near their times."""
        first_s, last_s = float(times_s[0]), float(times_s[-1])
        phonemes = self.phonemes.between(first_s - MAX_REACH_S, last_s + MAX_REACH_S)
        if not (phonemes and self._uses_phonemes):
            return tokens_ND
        weights = viseme_weights(phonemes, [float(t) for t in times_s], float(frame_s))
        # If the lip motion is scaled down, scale the constraints too.
        weights *= min(1.0, self.articulation)
        weights_N3 = torch.from_numpy(weights).to(tokens_ND)
        lips = self._model.decode_lip_motion(tokens_ND)
        lips = constrain_lips(lips, weights_N3, max(1.0, self.articulation))
        lips[~weights_N3.any(1)] = torch.nan  # Tokens with NaN lips are not changed.
        # Tokens also determine the shading, so blend those of closed lips with the silence token.
        tokens_ND = tokens_ND.lerp(self._silence(encoded), weights_N3[:, :1])
        return self._model.set_lip_motion(tokens_ND, lips)

    def _silence(self, encoded: _EncodedReference) -> Tensor:
        if encoded.silence is None:
            encoded.silence = self._encode_silence(encoded.features)
        return encoded.silence

    def _encode_silence(self, reference: ReferenceFeatures) -> Tensor:
        """Return the token [D] of continuous silence."""
        past, ahead = self._model.context_frames, self._model.lookahead_frames
        features = AudioFeatures(self._spec, self._model.input_features)
        window = features.silence(self._spec.mel_window).to(self._device)
        audio = window.expand(1, past + 1 + ahead, -1, -1)
        return self._model.encode_audio(audio, reference)[0, past]

    def _encode_context(
        self, batch: list[SourceFrame], encoded: _EncodedReference
    ) -> ContextFeatures:
        """Return the context features of every frame, or of one frame if all are identical."""
        known = [frame.context for frame in batch if frame.context is not None]
        if len(known) == len(batch):
            if all(context is known[0] for context in known):
                return known[0]
            maps = zip(*(context.maps for context in known), strict=True)
            token = torch.cat([context.token for context in known])
            return ContextFeatures(token, [torch.cat(stage) for stage in maps])
        first = batch[0]
        if any(f.image is not first.image or f.transform is not first.transform for f in batch):
            return self._context_of(batch, encoded.features)
        if encoded.still is None or encoded.still[0].image is not first.image:
            encoded.still = first, self._context_of([first], encoded.features)
        return encoded.still[1]

    def _context_of(
        self, frames: list[SourceFrame], features: ReferenceFeatures
    ) -> ContextFeatures:
        transforms = [frame.transform for frame in frames if frame.transform is not None]
        masked = masked_face(self._unmasked([f.image for f in frames], transforms), self._spec)
        if not self._model.needs_head_pose:
            return self._model.encode_context(masked, features)
        turns = torch.from_numpy(np.stack([_head_turn(frame) for frame in frames]))
        return self._model.encode_context(masked, features, turns.to(self._device))

    def _unmasked(self, images: list, transforms: list[FloatArray]) -> Tensor:
        """Return canonical faces; those of frames with two references are only warped once."""
        faces = []
        for image, transform in zip(images, transforms, strict=True):
            key = id(image), id(transform)
            if key not in self._warped:
                # The entry keeps the objects, so that their identities stay unique.
                self._warped[key] = self._faces([image], [transform]), image, transform
            faces.append(self._warped[key][0])
        return torch.cat(faces)

    def _faces(self, images: list, transforms: list[FloatArray], scale: int = 1) -> Tensor:
        """Return canonical faces float32 [N, 3, H, W] in [0, 1] on the device.

        H and W are `scale` times `face_size`.
        """
        size = scale * self._spec.face_size
        faces = [warp_face(i, t, size) for i, t in zip(images, transforms, strict=True)]
        return as_tensor(np.stack(faces)).to(self._device)

    def _mixed_precision(self) -> torch.autocast:
        enabled = self._autocast is not None
        return torch.autocast(self._device.type, self._autocast, enabled)


class SpeakingFaces:
    """The mouths of one prediction: one generator for all faces, or one for each face.

    Args:
        mouths: the generators; if there are several, the index is the slot of the face.
        speeches: the chunks of speech of each generator.
    """

    def __init__(self, mouths: Sequence[MouthGenerator], speeches: Sequence[SpeechChunks]) -> None:
        self._mouths, self._speeches = mouths, speeches

    @property
    def duration_s(self) -> Fraction | None:
        """Duration of the longest speech in seconds, None until every speech has ended."""
        durations_s = [speech.duration_s for speech in self._speeches]
        known_s = [duration_s for duration_s in durations_s if duration_s is not None]
        return max(known_s) if len(known_s) == len(durations_s) else None

    def pull_until(self, time_s: Fraction) -> None:
        """Read speech until the tokens at a time are available or the speech ends."""
        for mouths, speech in zip(self._mouths, self._speeches, strict=True):
            mouths.tokens.pull_until(speech, time_s)

    def generate(self, frames: list[SourceFrame]) -> Iterator[GeneratedFrame]:
        """Generate the mouths of consecutive frames, whose tokens must be available."""
        if len(self._mouths) == 1:
            return self._mouths[0].generate(frames)
        parts = [
            mouths.generate([frame for frame in frames if frame.slot == slot])
            for slot, mouths in enumerate(self._mouths)
        ]
        return (next(parts[frame.slot]) for frame in frames)


def _head_turn(frame: SourceFrame) -> FloatArray:
    """Return the head rotation relative to the reference in degrees [3]; 0 if not measured."""
    if frame.pose is None or frame.reference is None or frame.reference.pose is None:
        return np.zeros(3, np.float32)
    return head_turn(frame.pose, frame.reference.pose)


def _to_fields(output: GeneratorOutput, spec: AVSpec) -> list[MouthFields]:
    """Convert the output of the model to the mouth fields of each frame."""
    # The model's flows are in half widths of the mouth box, those of `MouthFields` in widths.
    flow, sides = (0.5 * _to_array(flow) for flow in (output.flow, output.sides))
    rgb, mask = _to_array(output.rgb), _to_array(output.mask)[..., 0]
    corner = np.array([spec.mouth_x, spec.mouth_y], np.float32)
    lips = (output.points.float().cpu().numpy() - corner) / np.float32(spec.mouth_side)
    return [MouthFields(*fields) for fields in zip(flow, rgb, mask, sides, lips, strict=True)]


def _to_array(maps: Tensor) -> FloatArray:
    """Return maps [N, C, H, W] as contiguous float32 [N, H, W, C]."""
    return np.ascontiguousarray(maps.float().permute(0, 2, 3, 1).cpu().numpy())
