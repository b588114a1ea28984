"""Animation of the heads and faces in a photo.

Each frame depends only on its time and the speech, so a stream and a file give the same frames.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import RLock

import numpy as np

from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.head_pose import FaceFrame, fit_face_frame
from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.predict.source.head.expression.blendshapes import BLENDSHAPES
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.predict.source.head.expression.expression_track import ExpressionTrack
from talkinghead.predict.source.head.expression.eyes import Eyes, look
from talkinghead.predict.source.head.head_geometry import Floats
from talkinghead.predict.source.head.head_warp import POSE_LIMITS_DEG, HeadWarp
from talkinghead.predict.source.head.motion.driving_video import DrivingVideo
from talkinghead.predict.source.head.motion.idle_motion import (
    blink_closure,
    listening_nod_deg,
    saccade_deg,
)
from talkinghead.predict.source.head.motion.pose_track import PoseTrack, constant_pose
from talkinghead.predict.source.head.motion.speech_motion import SpeechGesture
from talkinghead.types import Face, FloatArray, UInt8Array

log = logging.getLogger(__name__)

# Amplitudes of the sway of yaw, pitch and roll in degrees, and range of its frequencies.
_SWAY_DEG = np.array([2.5, 1.2, 0.9])
_SWAY_HZ = (0.1, 0.3)
_WAVES = 3
# Fraction of the head's turn that the gaze compensates, so that it stays on the viewer.
_HELD_GAZE = 0.9
# Layout of a state: turn of the head, weights of the blendshapes, and attention.
_TURN, _WEIGHTS, _ATTENTION = slice(0, 3), slice(3, 3 + len(BLENDSHAPES)), 3 + len(BLENDSHAPES)


@dataclass
class HeadControls:
    """Controls of the faces that an application may change during a stream.

    Changes are smoothed over a few frames. In a video, only the emotion has an effect.

    Attributes:
        emotion: emotion in place of that of the `SourceOptions`; None keeps it.
        pose_deg: yaw, pitch and roll in degrees, in addition to those of the `SourceOptions`.
        is_listening: somebody is talking to the face, which nods from time to time.
    """

    emotion: Emotion | None = None
    pose_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    is_listening: bool = False

    def update(
        self,
        emotion: str | None = None,
        intensity: float | None = None,
        pose: Sequence[float] | None = None,
    ) -> None:
        """Change the emotion, its intensity, or the pose in degrees; None keeps each of them.

        Raises:
            UsageError: The emotion is unknown, or a number is out of range.
        """
        if emotion is not None or intensity is not None:
            before = self.emotion or Emotion("neutral")
            name = before.name if emotion is None else emotion
            self.emotion = Emotion(name, before.intensity if intensity is None else intensity)
        if pose is not None:
            yaw, pitch, roll = constant_pose(pose)
            self.pose_deg = (yaw, pitch, roll)


@dataclass(frozen=True)
class HeadCue:
    """Input of a frame to the motion of the heads in a photo, in addition to the options.

    Attributes:
        gesture: prosody of the speech; None without speech.
        emotion: emotion in place of that of the options; None keeps it.
        pose_deg: yaw, pitch and roll in addition to those of the options.
        is_listening: somebody is talking to the face.
    """

    gesture: SpeechGesture | None = None
    emotion: Emotion | None = None
    pose_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    is_listening: bool = False

    def controlled(self, controls: HeadControls) -> HeadCue:
        """Return the cue with the controls of an application; a tagged emotion has priority."""
        emotion = self.emotion or controls.emotion
        return HeadCue(self.gesture, emotion, controls.pose_deg, controls.is_listening)


@dataclass(frozen=True)
class HeadMotion:
    """Motion of the heads in a photo, as selected by the options.

    Attributes:
        kind: "none"; "idle" adds a slight sway, blinks and a gaze that stays on the viewer;
            "speech" adds turns, nods and raised brows with the speech.
        seed: seed of the sway, of the times of the blinks and of the poses of phrases.
        pose: pose of the heads relative to the photo.
        expression: weights of blendshapes.
        emotion: emotion in addition to the expression.
        driver: video whose head motion, blinks and gaze are repeated.
    """

    kind: str = "none"
    seed: int = 0
    pose: PoseTrack | None = None
    expression: ExpressionTrack | None = None
    emotion: Emotion = field(default_factory=lambda: Emotion("neutral"))
    driver: DrivingVideo | None = None


class _Head:
    """One head: its warp (None if it cannot be turned), its eyes, and random waves."""

    def __init__(
        self,
        image: UInt8Array,
        faces: Sequence[Face],
        index: int,
        seed: int,
        detector: FaceDetector | None,
    ) -> None:
        self._image, self._faces, self._index, self.seed = image, faces, index, seed
        self._detector = detector
        self._frame: FaceFrame | None = fit_face_frame(faces[index])
        self._lock = RLock()
        self._parts: tuple[HeadWarp | None, Eyes] | None = None
        rng = np.random.default_rng(seed)
        self._hz = rng.uniform(*_SWAY_HZ, (3, _WAVES))
        self._phase = rng.uniform(0, 2 * np.pi, (3, _WAVES))

    @property
    def parts(self) -> tuple[HeadWarp | None, Eyes]:
        """The warp and the eyes, which are analysed when they are first needed."""
        with self._lock:
            if self._parts is None:
                face, frame = self._faces[self._index], self._frame
                others = [other for other in self._faces if other is not face]
                warp = (
                    None
                    if frame is None
                    else HeadWarp(*(self._image, face, frame, others, self._detector))
                )
                eyes = Eyes(self._image, face, None if frame is None else frame.scale)
                self._parts = warp, eyes
            return self._parts

    @property
    def warp(self) -> HeadWarp | None:
        """The warp, None if the head cannot be turned."""
        return self.parts[0]

    def sway_deg(self, time_s: float) -> Floats:
        """Return the yaw, pitch and roll of the sway, which is 0 at the start."""
        waves = np.sin(2 * np.pi * self._hz * time_s + self._phase) - np.sin(self._phase)
        return np.asarray(_SWAY_DEG * waves.sum(axis=1) / np.sqrt(_WAVES))


class PhotoAnimation:
    """Turns and expressions of the faces in a photo, rendered after the mouths.

    Safe for concurrent callers.

    Args:
        image: the photo, uint8 [H, W, 3] RGB.
        faces: the faces to animate.
        motion: the motion.
        others: further faces, which only sway and blink if the motion of the faces is not "none".
        animated: indices of the faces to animate among both, for those whose speech differs; the
            motion of the heads does not change the rest. None animates all.
        detector: detector of the faces, which measures how far the heads turn (see `HeadWarp`).
    """

    def __init__(
        self,
        image: UInt8Array,
        faces: Sequence[Face],
        motion: HeadMotion | None = None,
        others: Sequence[Face] = (),
        animated: Sequence[int] | None = None,
        detector: FaceDetector | None = None,
    ) -> None:
        self._motion = motion or HeadMotion()
        seed, known = self._motion.seed, [*faces, *others]
        indices = range(len(known)) if animated is None else animated
        self._heads = [_Head(image, known, index, seed + index, detector) for index in indices]
        idle = HeadMotion("none" if self._motion.kind == "none" else "idle", seed)
        self._motions = [self._motion if index < len(faces) else idle for index in indices]

    def prepare(self) -> None:
        """Analyse the heads now; otherwise, they are analysed when they first move."""
        for head, motion in zip(self._heads, self._motions, strict=True):
            if head.warp is not None and motion.pose is not None:
                _warn_of_limits(head.warp.limits_deg, motion.pose.largest_deg)

    @property
    def limits_deg(self) -> FloatArray:
        """Limits of the yaw, pitch and roll of each head, float32 [faces, 3]; 0 without motion."""
        still = np.zeros(3, np.float32)
        return np.stack([still if h.warp is None else h.warp.limits_deg for h in self._heads])

    def is_still(self, state: FloatArray) -> bool:
        """Return whether `render` returns the photo unchanged at all times in this state."""
        motion = self._motion
        is_idle = motion.kind == "none" and motion.emotion.is_neutral
        has_track = bool(motion.pose or motion.expression or motion.driver)
        return is_idle and not has_track and not state.any()

    def pose_at(self, time_s: float, face: int = 0) -> FloatArray:
        """Return the yaw, pitch and roll of a face relative to the photo in degrees, float32 [3].

        Limits of the head's motion are not applied.
        """
        motion = self._motions[face]
        pose = np.zeros(3) if motion.pose is None else motion.pose.at(time_s)
        if motion.driver is not None:
            pose = pose + motion.driver.pose_at(time_s)
        elif motion.kind != "none":
            pose = pose + self._heads[face].sway_deg(time_s)
        return np.asarray(pose, np.float32)

    def target(self, cue: HeadCue) -> FloatArray:
        """Return the target state of a frame, float32; `render` takes it smoothed over time.

        It is 0 if only the options determine the motion.
        """
        target = np.zeros(_ATTENTION + 1, np.float32)
        target[_TURN] = cue.pose_deg
        if cue.emotion is not None:
            target[_WEIGHTS] = cue.emotion.weights - self._motion.emotion.weights
        if self._motion.kind == "speech" and cue.gesture is not None:
            target[_TURN] += cue.gesture.pose_deg(self._motion.seed)
            target[_WEIGHTS] += cue.gesture.raised_brows
        target[_ATTENTION] = cue.is_listening
        return target

    def render(
        self,
        image: UInt8Array,
        time_s: float,
        state: FloatArray | None = None,
        gesture: SpeechGesture | None = None,
    ) -> UInt8Array:
        """Return the photo with the heads and faces moved as at a given time.

        Args:
            image: the photo with generated mouths, uint8 [H, W, 3]; it is not changed.
            time_s: time since the start.
            state: smoothed values of `target`; None is 0.
            gesture: the speech, for blinks at the end of phrases.
        """
        if state is None:
            state = np.zeros(_ATTENTION + 1, np.float32)
        still = np.zeros_like(state)
        states = [state if motion is self._motion else still for motion in self._motions]
        poses = [self._pose(time_s, index, one) for index, one in enumerate(states)]
        faces = [
            self._weights(time_s, index, pose, one)
            for index, (pose, one) in enumerate(zip(poses, states, strict=True))
        ]
        drawn = self._draw_eyes(image, time_s, faces, gesture)
        turned = [
            head.warp.turned(drawn, pose_deg, weights)
            for head, pose_deg, weights in zip(self._heads, poses, faces, strict=True)
            if (pose_deg.any() or weights.any()) and head.warp is not None
        ]
        if not turned:
            return drawn
        result = drawn.copy()
        for one in turned:
            one.clear(result)
        for one in turned:
            one.blend(result)
        return result

    def render_patched(
        self,
        image: PatchedImage,
        time_s: float,
        state: FloatArray,
        gesture: SpeechGesture | None = None,
    ) -> PatchedImage:
        """Render an image with patches (see `render`); only the areas of the heads are replaced."""
        photo = image.to_array()
        rendered = self.render(photo, time_s, state, gesture)
        if rendered is photo:
            return image
        warps = [head.warp for head in self._heads]
        if None in warps:
            return PatchedImage(rendered)
        for rows, columns in (warp.area for warp in warps if warp is not None):
            image = image.with_patch(Patch(rows.start, columns.start, rendered[rows, columns]))
        return image

    def _pose(self, time_s: float, index: int, state: FloatArray) -> FloatArray:
        pose_deg = self.pose_at(time_s, index) + state[_TURN]
        if state[_ATTENTION] > 0 and self._motions[index].kind != "none":
            nod_deg = listening_nod_deg(time_s, self._heads[index].seed)
            pose_deg[1] += state[_ATTENTION] * np.float32(nod_deg)
        return np.asarray(pose_deg)

    def _weights(
        self, time_s: float, index: int, pose_deg: FloatArray, state: FloatArray
    ) -> FloatArray:
        """Return the weights of the blendshapes of one face."""
        motion = self._motions[index]
        weights = motion.emotion.weights + state[_WEIGHTS]
        if motion.expression is not None:
            weights = weights + motion.expression.at(time_s)
        if motion.driver is not None:
            weights = weights + motion.driver.gaze_at(time_s)
        elif motion.kind != "none":
            seed = self._heads[index].seed
            right_deg, down_deg = saccade_deg(time_s, seed) - _HELD_GAZE * pose_deg[:2]
            weights = weights + look(right_deg, down_deg)
        return np.asarray(weights.clip(0, 1), np.float32)

    def _draw_eyes(
        self,
        image: UInt8Array,
        time_s: float,
        faces: list[FloatArray],
        gesture: SpeechGesture | None,
    ) -> UInt8Array:
        result = image
        for index, (head, weights) in enumerate(zip(self._heads, faces, strict=True)):
            blink = self._blink(time_s, index, gesture)
            if not blink and not weights.any():
                continue
            eyes = head.parts[1]
            if eyes.moves(weights, blink):
                result = image.copy() if result is image else result
                eyes.draw(result, weights, blink)
        return result

    def _blink(self, time_s: float, index: int, gesture: SpeechGesture | None) -> float:
        motion, seed = self._motions[index], self._heads[index].seed
        if motion.driver is not None:
            return motion.driver.closure_at(time_s)
        if motion.kind == "none":
            return 0.0
        closure = blink_closure(time_s, seed)
        if motion.kind == "speech" and gesture is not None:
            closure = max(closure, gesture.closure(seed))
        return closure


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
