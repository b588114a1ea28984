"""Follow faces through a video: tracking, smoothed alignment, and fading in and out.

All stages are streams. Smoothing needs a look-ahead of half a second.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import tee
from typing import TypeAlias

import cv2
import numpy as np

from talkinghead.features.faces.alignment import (
    NOSE_LINE,
    estimate_transform,
    frontality,
    lip_points,
    mouth_opening,
)
from talkinghead.features.faces.head_pose import head_pose
from talkinghead.features.faces.tracker import FaceTracker, MultiTracker
from talkinghead.features.faces.transform_smoothing import LandmarkSmoother, TransformSmoother
from talkinghead.predict.source.mouth_covering import measure_visibility
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import AVSpec, Face, FloatArray

log = logging.getLogger(__name__)

Sighting: TypeAlias = tuple[SourceFrame, Face | None]
"""A frame and the tracked face in it, if it was found."""

MAX_FACES = 4
"""Maximum number of faces that are tracked at the same time; the largest faces are selected."""

_FADE_S = Fraction(12, 100)
# Maximum time between two frames with a covered mouth for which the frames between them count as
# covered.
_MAX_COVERED_GAP_S = Fraction(2, 5)
# Visible fractions of the face at which the generated mouth is opaque and transparent.
_OPAQUE_FRACTION, _TRANSPARENT_FRACTION = 0.85, 0.6


def track_face(frames: Iterable[SourceFrame], tracker: FaceTracker) -> Iterator[Sighting]:
    """Yield every frame together with the tracked face."""
    for frame in frames:
        if frame.starts_shot:
            tracker.reset()
        face = tracker.update(frame.image, frame.file_time_s)
        yield _with_cut(frame, tracker), face


def track_faces(
    frames: Iterable[SourceFrame], tracker: MultiTracker, first: int = 0
) -> list[Iterator[Sighting]]:
    """Return iterators of sightings, one for each slot of the tracker from slot `first` on.

    The faces in the slots before `first` are tracked, so that no other slot takes them. A slot that
    another face takes over starts a new shot. Advance the iterators together: frames that one has
    read are kept until all have read them.
    """

    def update() -> Iterator[list[Sighting]]:
        for frame in frames:
            if frame.starts_shot:
                tracker.reset()
            faces = tracker.update(frame.image, frame.file_time_s)
            frame = _with_cut(frame, tracker)
            yield [(in_slot(frame, slot), faces[slot]) for slot in range(first, len(faces))]

    def in_slot(frame: SourceFrame, slot: int) -> SourceFrame:
        starts_shot = frame.starts_shot or slot in tracker.exchanged
        return replace(frame, slot=slot - first, starts_shot=starts_shot)

    def slot_sightings(index: int, updates: Iterable[list[Sighting]]) -> Iterator[Sighting]:
        return (sightings[index] for sightings in updates)

    copies = tee(update(), tracker.num_slots - first)
    return [slot_sightings(index, copy) for index, copy in enumerate(copies)]


def _with_cut(frame: SourceFrame, tracker: FaceTracker | MultiTracker) -> SourceFrame:
    if not tracker.cut:
        return frame
    return replace(frame, starts_shot=True, num_mixed=tracker.num_mixed)


def align_faces(
    sightings: Iterable[Sighting], spec: AVSpec, fps: Fraction, name: str | None = None
) -> Generator[SourceFrame]:
    """Add measurements, a smoothed transform and a smoothed face to each frame, with a fixed delay.

    Frames without a face keep `transform` None. So do the last half a second of the frames that
    belong to two shots, as in a dissolve, where the face is a mixture. A covered mouth is
    logged with the name of the video, if one is given.
    """
    smoother, landmark_smoother = TransformSmoother(fps, spec), LandmarkSmoother(fps)
    waiting: deque[SourceFrame] = deque()
    covered_s: Fraction | None = None

    def ready(transforms: list[FloatArray], landmarks: list[FloatArray]) -> Iterator[SourceFrame]:
        for transform, points in zip(transforms, landmarks, strict=True):
            frame = waiting.popleft()
            if frame.transform is None or frame.face is None:
                yield replace(frame, face=None)
            else:
                yield replace(frame, transform=transform, face=_with_points(frame.face, points))

    for frame, face in sightings:
        if frame.starts_shot:
            for index in range(max(0, len(waiting) - frame.num_mixed), len(waiting)):
                waiting[index] = replace(waiting[index], transform=None, strength=0.0)
            yield from ready(smoother.flush(), landmark_smoother.flush())
        if face is None:
            waiting.append(replace(frame, strength=0.0))
        else:
            waiting.append(_measure(frame, face, spec))
            if waiting[-1].is_covered:
                _cover_gap(waiting, covered_s, name)
                covered_s = frame.time_s
        points = None if face is None else _points_with_depth(face)
        yield from ready(smoother.push(waiting[-1].transform), landmark_smoother.push(points))
    yield from ready(smoother.flush(), landmark_smoother.flush())


def _cover_gap(waiting: deque[SourceFrame], covered_s: Fraction | None, name: str | None) -> None:
    """Mark the frames since the last covered one as covered too, if it is recent.

    On an object in front of the mouth, the landmarks move, and the object may seem to be skin.
    """
    last = waiting[-1]
    if covered_s is None:
        if name is not None:
            log.warning(
                "%s: the mouth is covered at %.2f s; frames in which it is covered, by a mask for "
                "example, are not changed",
                name,
                last.file_time_s,
            )
    elif last.time_s - covered_s <= _MAX_COVERED_GAP_S:
        for index, frame in enumerate(waiting):
            if frame.time_s > covered_s and frame.face is not None:
                waiting[index] = replace(frame, is_covered=True, strength=0.0)


def _points_with_depth(face: Face) -> FloatArray:
    depth = () if face.depth is None else (face.depth,)
    return np.column_stack([face.points, *depth])


def _with_points(face: Face, points: FloatArray) -> Face:
    """Return a face with other landmarks, as `_points_with_depth` returns them."""
    depth = None if face.depth is None else np.ascontiguousarray(points[:, 2])
    return replace(face, points=np.ascontiguousarray(points[:, :2]), depth=depth)


def _measure(frame: SourceFrame, face: Face, spec: AVSpec) -> SourceFrame:
    """Return the frame with the measurements of its face."""
    points, topology = face.points, face.topology
    pose = head_pose(points, topology)
    transform = _correct_yaw_scale(estimate_transform(points, topology, spec), pose, spec)
    lips = lip_points(points, topology)
    visibility = measure_visibility(frame.image, transform, lips, spec)
    strength = min(frontality(points, topology), _visible_strength(frame, face))
    return replace(
        frame,
        transform=transform,
        face=face,
        opening=mouth_opening(points, topology),
        lips=lips,
        pose=pose,
        outline=cv2.convexHull(points)[:, 0].astype(np.float32),
        strength=0.0 if visibility.is_covered else strength,
        covering=visibility.covering,
        is_covered=visibility.is_covered,
        contrast=visibility.contrast,
        colours=visibility.colours,
    )


def _correct_yaw_scale(transform: FloatArray, pose: FloatArray, spec: AVSpec) -> FloatArray:
    """Correct the scale for a turned head, where the eyes are closer together in the image."""
    scale = np.cos(np.radians(np.nan_to_num(pose[0])))
    nose = np.array([0.5, NOSE_LINE]) * spec.face_size
    scaled = scale * transform
    scaled[:, 2] += (1 - scale) * nose
    return scaled.astype(np.float32)


def _visible_strength(frame: SourceFrame, face: Face) -> float:
    """Return the mouth opacity: from 1 for a face inside the image to 0 for a face outside."""
    height, width, box = *frame.image.shape[:2], face.box
    inside_x = min(box.x1, width) - max(box.x0, 0)
    inside_y = min(box.y1, height) - max(box.y0, 0)
    visible = min(inside_x / box.width, inside_y / box.height)
    ramp = (visible - _TRANSPARENT_FRACTION) / (_OPAQUE_FRACTION - _TRANSPARENT_FRACTION)
    return min(1.0, max(0.0, ramp))


def fade_faces(frames: Iterable[SourceFrame], fps: Fraction) -> Iterator[SourceFrame]:
    """Limit the change of `strength` per frame, so that mouths fade in and out.

    The look-ahead lets a mouth fade out before the face is lost. There is no fade at the start
    and the end of a shot, where the whole image changes.
    """
    reach = max(1, round(_FADE_S * fps))
    near: deque[SourceFrame] = deque()
    done = 0

    def ready(count: int) -> Iterator[SourceFrame]:
        nonlocal done
        while done < count:
            strength = min(
                frame.strength + abs(index - done) / (reach + 1) for index, frame in enumerate(near)
            )
            is_shown = near[done].transform is not None and strength > 0
            frame = near[done] if is_shown else replace(near[done], transform=None, face=None)
            yield replace(frame, strength=min(1.0, strength))
            done += 1
        while done > reach:
            near.popleft()
            done -= 1

    for frame in frames:
        if frame.starts_shot:
            yield from ready(len(near))
            near.clear()
            done = 0
        near.append(frame)
        yield from ready(len(near) - reach)
    yield from ready(len(near))


def interleave_tracks(tracks: Iterable[Iterable[SourceFrame]]) -> Iterator[SourceFrame]:
    """Merge the tracks of a video; yield each image once per face, or once without a face.

    A face with a covered mouth counts too.
    """
    for frames in zip(*tracks, strict=True):
        found = (frame for frame in frames if frame.transform is not None or frame.is_covered)
        with_face = list(found) or frames[:1]
        for number, frame in enumerate(with_face, 1):
            yield replace(frame, is_last=number == len(with_face))
