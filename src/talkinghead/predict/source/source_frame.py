"""Frames of a source, each with a face and a reference for the face."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from talkinghead.media.decoding.video_image import ImageLike
from talkinghead.types import Face, FloatArray, UInt8Array

if TYPE_CHECKING:
    from talkinghead.media.encoding.patched_image import PatchedImage
    from talkinghead.models.lipsync.decoder import ContextFeatures, ReferenceFeatures
    from talkinghead.predict.source.head.motion.speech_motion import SpeechGesture
    from talkinghead.predict.source.head.photo_animation import HeadCue


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference face: the image that supplies identity and texture.

    Attributes:
        image: uint8 [H, W, 3] RGB; of a video, the part of a frame that contains the face.
        transform: from image pixels to the canonical face, float32 [2, 3].
        lips: lip landmarks in image pixels, [20, 2] (see `lip_points`).
        pose: head pose (see `talkinghead.features.faces.head_pose`), None if not measured.
        outline: convex outline of the face in image pixels, float32 [P, 2]; None in a photo.
        features: the model's features, None until they are encoded.
        time_s: `time_s` of the video frame from which the reference was made; None in a photo.
    """

    image: UInt8Array
    transform: FloatArray
    lips: FloatArray
    pose: FloatArray | None = None
    outline: FloatArray | None = None
    features: ReferenceFeatures | None = None
    time_s: Fraction | None = None


@dataclass(frozen=True, eq=False)
class PreviousReference:
    """The reference that is being replaced during a transition.

    Attributes:
        weight: its blend weight during the transition, in (0, 1).
        context: context features for this reference, None until they are encoded.
    """

    reference: Reference
    weight: float
    context: ContextFeatures | None = None


class Animation(Protocol):
    """Motion of the faces in an image."""

    def target(self, cue: HeadCue) -> FloatArray:
        """Return the target state of a frame, float32 [N]; 0 is that of the options."""

    def is_still(self, state: FloatArray) -> bool:
        """Return whether the image is unchanged at all times in this state."""

    def render_patched(
        self,
        image: PatchedImage,
        time_s: float,
        state: FloatArray,
        gesture: SpeechGesture | None = None,
    ) -> PatchedImage:
        """Return the image at a given time in a state."""


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """An image to be processed, and one face in the image.

    If several faces speak, there is one source frame per face and image; the last has `is_last`.

    Attributes:
        image: uint8 [H, W, 3] RGB, or an image of a video.
        time_s: start time of the frame in the output.
        duration_s: duration of the frame.
        transform: from image pixels to the canonical face, float32 [2, 3]; None without a face.
        reference: the face's reference, None without a face.
        opening: mouth opening in this image (see `mouth_opening`).
        lips: lip landmarks in image pixels, None without a face.
        face: the face with landmarks that are smoothed over time; None in a photo.
        pose: head pose, None if not measured.
        outline: convex outline of the face in image pixels, float32 [P, 2]; None in a photo.
        starts_shot: the frame is the first after a cut, or the first with another person's face, so
            temporal state must be reset.
        num_mixed: number of preceding frames that show parts of this shot and of the one before.
        strength: opacity of the generated mouth, in [0, 1].
        covering: fraction of the area around the mouth that is not of the colour of the skin.
        contrast: contrast of the face (see `mouth_covering`).
        colours: colours around the lips (see `mouth_covering`), None if not measured.
        is_covered: an object, such as a mask, covers the mouth, which is not generated.
        file_time_s: time in the file. It differs from `time_s` when a video is repeated.
        is_extension: the frame extends the source beyond its end, for speech that is longer.
        slot: index of the face among the faces of the image.
        is_last: no other face of the same image follows.
        context: the model's context features, None until they are encoded.
        animation: motion of the heads and faces in a photo, or the expression of the faces in a
            video, applied to the image with all generated mouths; None for none.
        previous_reference: the reference that is being replaced, None outside transitions.
    """

    image: ImageLike
    time_s: Fraction
    duration_s: Fraction
    transform: FloatArray | None = None
    reference: Reference | None = None
    opening: float = 0.0
    lips: FloatArray | None = None
    face: Face | None = None
    pose: FloatArray | None = None
    outline: FloatArray | None = None
    starts_shot: bool = False
    num_mixed: int = 0
    strength: float = 1.0
    covering: float = 0.0
    contrast: float = 1.0
    colours: FloatArray | None = None
    is_covered: bool = False
    file_time_s: Fraction = Fraction(0)
    is_extension: bool = False
    slot: int = 0
    is_last: bool = True
    context: ContextFeatures | None = None
    animation: Animation | None = None
    previous_reference: PreviousReference | None = None

    @property
    def with_previous_reference(self) -> SourceFrame | None:
        """A copy of the frame that uses the previous reference, or None outside transitions."""
        if self.previous_reference is None:
            return None
        reference, context = self.previous_reference.reference, self.previous_reference.context
        return replace(self, reference=reference, context=context, previous_reference=None)

    @property
    def middle_s(self) -> Fraction:
        """Time of the middle of the frame, at which the speech is sampled."""
        return self.time_s + self.duration_s / 2
