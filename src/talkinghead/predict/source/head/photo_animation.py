"""Animation of the heads and eyes in a photo.

Each frame depends only on its time and the speech, so a stream and a file give the same frames.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from talkinghead.features.faces.head_pose import fit_face_frame
from talkinghead.predict.source.head.eyelids import Eye, blink_closure, find_eyes
from talkinghead.predict.source.head.head_geometry import Floats
from talkinghead.predict.source.head.head_warp import POSE_LIMITS_DEG, HeadWarp
from talkinghead.predict.source.head.pose_track import PoseTrack
from talkinghead.predict.source.head.speech_motion import SpeechGesture
from talkinghead.types import Face, FloatArray, UInt8Array

log = logging.getLogger(__name__)

# Amplitudes of the sway of yaw, pitch and roll in degrees, and range of its frequencies.
_SWAY_DEG = np.array([2.5, 1.2, 0.9])
_SWAY_HZ = (0.1, 0.3)
_WAVES = 3


@dataclass(frozen=True)
class _Head:
    """One head: its warp (None if it cannot be turned), open eyes, and random waves."""

    warp: HeadWarp | None
    eyes: list[Eye]
    seed: int
    hz: Floats
    phase: Floats

    def sway_deg(self, time_s: float) -> Floats:
        """Return the yaw, pitch and roll of the sway, which is 0 at the start."""
        waves = np.sin(2 * np.pi * self.hz * time_s + self.phase) - np.sin(self.phase)
        return np.asarray(_SWAY_DEG * waves.sum(axis=1) / np.sqrt(_WAVES))


class PhotoAnimation:
    """Turns of the heads and blinks of the eyes in a photo, rendered after the mouths.

    Safe for concurrent callers.

    Args:
        image: the photo, uint8 [H, W, 3] RGB.
        faces: the faces to animate.
        pose: pose of the heads relative to the photo.
        motion: "idle" adds a slight sway and blinks; "speech" adds turns and nods with the speech.
        seed: seed of the sway, of the times of the blinks and of the poses of phrases.
    """

    def __init__(
        self,
        image: UInt8Array,
        faces: list[Face],
        pose: PoseTrack | None = None,
        motion: str = "none",
        seed: int = 0,
    ) -> None:
        self._pose, self._motion, self._seed = pose, motion, seed
        self._heads = []
        for index, face in enumerate(faces):
            others = [other for other in faces if other is not face]
            frame = fit_face_frame(face)
            warp = None if frame is None else HeadWarp(image, face, frame, others)
            if warp is not None and pose is not None:
                _warn_of_limits(warp.limits_deg, pose.largest_deg)
            rng = np.random.default_rng(seed + index)
            waves = rng.uniform(*_SWAY_HZ, (3, _WAVES)), rng.uniform(0, 2 * np.pi, (3, _WAVES))
            self._heads.append(_Head(warp, find_eyes(image, face), seed + index, *waves))

    def pose_at(self, time_s: float, face: int = 0) -> FloatArray:
        """Return the yaw, pitch and roll of a face relative to the photo in degrees, float32 [3].

        Limits of the head's motion are not applied.
        """
        pose = np.zeros(3) if self._pose is None else self._pose.at(time_s)
        sway = self._heads[face].sway_deg(time_s) if self._motion != "none" else 0
        return np.asarray(pose + sway, np.float32)

    def gesture_deg(self, gesture: SpeechGesture | None) -> FloatArray:
        """Return the yaw, pitch and roll by which speech moves the heads, float32 [3]."""
        if self._motion != "speech" or gesture is None:
            return np.zeros(3, np.float32)
        return gesture.pose_deg(self._seed)

    def render(
        self,
        image: UInt8Array,
        time_s: float,
        turn_deg: FloatArray | float = 0.0,
        gesture: SpeechGesture | None = None,
    ) -> UInt8Array:
        """Return the photo at a given time.

        Args:
            image: the photo with generated mouths, uint8 [H, W, 3]; it is not changed.
            time_s: time since the start.
            turn_deg: yaw, pitch and roll of all heads by speech.
            gesture: the speech, for blinks at the end of phrases.
        """
        image = self._close_eyes(image, time_s, gesture)
        result = image
        for index, head in enumerate(self._heads):
            pose_deg = self.pose_at(time_s, index) + turn_deg
            if head.warp is None or not pose_deg.any():
                continue
            result = image.copy() if result is image else result
            head.warp.draw(image, pose_deg, result)
        return result

    def _close_eyes(
        self, image: UInt8Array, time_s: float, gesture: SpeechGesture | None
    ) -> UInt8Array:
        if self._motion == "none":
            return image
        closures = [blink_closure(time_s, head.seed) for head in self._heads]
        if self._motion == "speech" and gesture is not None:
            closures = [
                max(closure, gesture.closure(head.seed))
                for closure, head in zip(closures, self._heads, strict=True)
            ]
        if not any(closures):
            return image
        image = image.copy()
        for head, closure in zip(self._heads, closures, strict=True):
            if closure > 0:
                for eye in head.eyes:
                    eye.close(image, closure)
        return image


def _warn_of_limits(limits_deg: FloatArray, largest_deg: FloatArray) -> None:
    """Log a warning if a head needs more space in the photo than there is."""
    limited = (largest_deg > limits_deg) & (limits_deg < POSE_LIMITS_DEG)
    names = ("yaw", "pitch", "roll")
    for name, limit in zip(np.array(names)[limited], limits_deg[limited], strict=True):
        log.warning(
            "pose: the %s is limited to %.0f degrees, because there is little space around the "
            "head: use a photo with more background",
            *(name, limit),
        )
