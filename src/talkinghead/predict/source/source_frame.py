"""What a source gives, and what may be asked of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from talkinghead.errors import UsageError
from talkinghead.types import FloatArray, UInt8Array

if TYPE_CHECKING:
    from talkinghead.models.lipsync.decoder import ContextFeatures, ReferenceFeatures

FACE_SELECT = ("largest", "index", "all", "speaking")
EXTEND = ("pingpong", "hold", "loop")
MOTION = ("none", "idle")


@dataclass(frozen=True)
class SourceOptions:
    """Whose mouth speaks, and how a photo or a video is played.

    Attributes:
        face_select: "largest"; "index", by `face_index`; "all", the speech goes into every face;
            "speaking", in each shot of a video whose mouth goes best with the video's own sound.
        face_index: counts the faces from the left, from 0, where a photo or a shot of a video shows
            them first.
        extend: how a video goes on where the speech is longer: "pingpong" (back again, and so on),
            "hold" (its last picture stays) or "loop" (from the beginning, which is seen as a cut).
        trim: end with the speech. Else a video is shown to its end, with a closed mouth and silence
            after the speech.
        motion: "none", or "idle": a photo blinks and sways a little.
        seed: of the idle motion.

    Raises:
        UsageError: a value is unknown.
    """

    face_select: str = "largest"
    face_index: int = 0
    extend: str = "pingpong"
    trim: bool = True
    motion: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("face_select", FACE_SELECT), ("extend", EXTEND), ("motion", MOTION)):
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"{name}={value} is unknown: choose one of {', '.join(known)}")
        if type(self.face_index) is not int or self.face_index < 0:
            raise UsageError(
                f"face_index={self.face_index} is no number of a face: they are counted from the "
                "left, from 0"
            )

    @property
    def wanted(self) -> str:
        """Which face, for a message that it was not found."""
        return f" of face_index={self.face_index}" if self.face_select == "index" else ""


@dataclass(frozen=True, eq=False)
class Reference:
    """A picture uint8 [H, W, 3] whose face is the model's reference, and its transform [2, 3].

    `lips` [20, 2] are where they are in the picture, pixels (see `lip_points`). `pose` is its
    head's (see `talkinghead.features.faces.head_pose`), None where it was not measured;
    `features` are the model's, None until it is encoded.
    """

    image: UInt8Array
    transform: FloatArray
    lips: FloatArray
    pose: FloatArray | None = None
    features: ReferenceFeatures | None = None


@dataclass(frozen=True, eq=False)
class PreviousReference:
    """The reference that the current one replaces, blended in during the transition.

    Attributes:
        reference: the previous reference.
        weight: its blend weight, in (0, 1).
        context: context features for this reference, None until they are encoded.
    """

    reference: Reference
    weight: float
    context: ContextFeatures | None = None


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A picture on its way, and one face in it: uint8 [H, W, 3], shown from `time_s` on.

    Where several faces are to speak, a picture comes once for each of them, the last time with
    `is_last`.

    Attributes:
        duration_s: how long it is shown.
        stored_s: its time in the file, which differs from `time_s` where a video is played again.
        transform: float32 [2, 3], None where no face is to speak.
        reference: None likewise.
        opening: the mouth's in this picture.
        lips: as the reference's; None where no face is to speak.
        pose: the head's, as the reference's.
        outline: a convex one around the face, float32 [P, 2] pixels; None in a photo.
        strength: how much of the new mouth is to be seen, in [0, 1].
        opens_shot: nothing may be carried over from the picture before.
        is_extension: it is shown only because the speech goes on.
        slot: which of the picture's faces.
        is_last: no other face of the same picture follows.
        context: the model's features of what surrounds the mouth, None until they are encoded.
        previous_reference: None where the reference is the only one.
    """

    image: UInt8Array
    time_s: Fraction
    duration_s: Fraction
    transform: FloatArray | None = None
    reference: Reference | None = None
    opening: float = 0.0
    lips: FloatArray | None = None
    pose: FloatArray | None = None
    outline: FloatArray | None = None
    opens_shot: bool = False
    strength: float = 1.0
    stored_s: Fraction = Fraction(0)
    is_extension: bool = False
    slot: int = 0
    is_last: bool = True
    context: ContextFeatures | None = None
    previous_reference: PreviousReference | None = None

    @property
    def with_previous_reference(self) -> SourceFrame | None:
        """The frame as the reference before has it."""
        if self.previous_reference is None:
            return None
        reference, context = self.previous_reference.reference, self.previous_reference.context
        return replace(self, reference=reference, context=context, previous_reference=None)

    @property
    def middle_s(self) -> Fraction:
        """The moment that the frame stands for."""
        return self.time_s + self.duration_s / 2
