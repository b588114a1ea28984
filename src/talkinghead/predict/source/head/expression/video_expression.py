"""Expressions of the faces in a video, added to those of the video itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from talkinghead.features.faces.head_pose import fit_face_frame
from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.predict.source.head.expression.blendshapes import BLENDSHAPES, LIDS, load_basis
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.predict.source.head.expression.expression_track import ExpressionTrack
from talkinghead.predict.source.head.expression.eyes import move_lids
from talkinghead.predict.source.head.expression.tracked_field import face_area, move_skin
from talkinghead.predict.source.head.eyelids import find_lids
from talkinghead.types import Face, FloatArray, UInt8Array

if TYPE_CHECKING:
    from talkinghead.predict.source.head.motion.speech_motion import SpeechGesture
    from talkinghead.predict.source.head.photo_animation import HeadCue


@dataclass(frozen=True)
class VideoExpression:
    """Expression of the faces in a video, as selected by the options.

    Attributes:
        expression: weights of blendshapes.
        emotion: emotion in addition to the expression.
    """

    expression: ExpressionTrack | None = None
    emotion: Emotion = field(default_factory=lambda: Emotion("neutral"))


@dataclass(frozen=True, eq=False)
class FrameExpression:
    """The faces of one frame of a video, whose expression is rendered after the mouths.

    Attributes:
        expression: the expression that the options select.
        faces: the faces with smoothed landmarks, and the opacity of each mouth, 0 to 1, by which
            the expression is multiplied.
    """

    expression: VideoExpression
    faces: Sequence[tuple[Face, float]]

    def target(self, cue: HeadCue) -> FloatArray:
        """Return the target weights of a frame in addition to the options, float32 [52]."""
        if cue.emotion is None:
            return np.zeros(len(BLENDSHAPES), np.float32)
        return cue.emotion.weights - self.expression.emotion.weights

    def is_still(self, state: FloatArray) -> bool:
        """Return whether the image is unchanged at all times in this state."""
        options = self.expression
        return options.expression is None and options.emotion.is_neutral and not state.any()

    def render_patched(
        self,
        image: PatchedImage,
        time_s: float,
        state: FloatArray,
        gesture: SpeechGesture | None = None,
    ) -> PatchedImage:
        """Return the image with expressions, which change an area around each face.

        Args:
            image: the frame with generated mouths.
            time_s: time since the start.
            state: smoothed values of `target`.
            gesture: ignored, because the head of a video has its own motion.
        """
        weights = self.expression.emotion.weights + state
        if self.expression.expression is not None:
            weights = weights + self.expression.expression.at(time_s)
        weights = weights.clip(0, 1)
        for face, strength in self.faces:
            shown = np.float32(strength) * weights
            if shown.any():
                image = _change_face(image, face, shown)
        return image


def _change_face(image: PatchedImage, face: Face, weights: FloatArray) -> PatchedImage:
    area = face_area(face, *image.base.shape[:2])
    if area is None:
        return image
    rows, columns = area
    corner = np.array([columns.start, rows.start], np.float32)
    face = replace(face, points=face.points - corner)
    frame = fit_face_frame(face)
    if frame is None:
        return image
    pixels = image.crop(rows, columns).copy()
    _move_lids(pixels, face, weights)
    move_skin(pixels, face, frame, weights)
    return image.with_patch(Patch(rows.start, columns.start, pixels))


def _move_lids(image: UInt8Array, face: Face, weights: FloatArray) -> None:
    """Move the lids of a face in place; less where the eyes are nearly closed."""
    for side, lids in zip(LIDS, find_lids(image, face), strict=True):
        if lids is not None:
            move_lids(image, lids, np.float32(lids[0].openness) * (_lid_travel(side) @ weights))


@cache
def _lid_travel(side: str) -> FloatArray:
    return load_basis().lid_travel(side)
