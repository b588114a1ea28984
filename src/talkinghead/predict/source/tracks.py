"""From a video's pictures to faces that can be made to speak.

Each face is followed, aligned with a smoothed transform, and faded in and out. Nothing is kept for
longer than the smoothing's half second needs.
"""

from __future__ import annotations

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
    TransformSmoother,
    estimate_transform,
    frontality,
    lip_points,
    mouth_opening,
)
from talkinghead.features.faces.head_pose import head_pose
from talkinghead.features.faces.tracker import FaceTracker, MultiTracker
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import AVSpec, Face, FloatArray

Sighting: TypeAlias = tuple[SourceFrame, Face | None]
"""A picture, and a face in it."""

MAX_FACES = 4
"""So many faces are followed side by side, the largest first."""

_FADE_S = Fraction(12, 100)
_IN_VIEW, _LEAST_IN_VIEW = 0.85, 0.6


def one_track(frames: Iterable[SourceFrame], tracker: FaceTracker) -> Iterator[Sighting]:
    """The face that a tracker chooses, in every frame."""
    for frame in frames:
        if frame.opens_shot:
            tracker.reset()
        face = tracker.update(frame.image, frame.stored_s)
        yield replace(frame, opens_shot=frame.opens_shot or tracker.cut), face


def many_tracks(
    frames: Iterable[SourceFrame], tracker: MultiTracker, max_faces: int = MAX_FACES
) -> list[Iterator[Sighting]]:
    """The sightings of each slot. Read them side by side: what one is ahead is held for all."""

    def update() -> Iterator[tuple[SourceFrame, list[Face | None]]]:
        for frame in frames:
            if frame.opens_shot:
                tracker.reset()
            faces = tracker.update(frame.image)
            yield replace(frame, opens_shot=frame.opens_shot or tracker.cut), faces

    def of(slot: int, updates: Iterable[tuple[SourceFrame, list[Face | None]]]) -> Iterator:
        return ((replace(frame, slot=slot), faces[slot]) for frame, faces in updates)

    return [of(slot, copy) for slot, copy in enumerate(tee(update(), max_faces))]


def aligned(sightings: Iterable[Sighting], spec: AVSpec, fps: Fraction) -> Generator[SourceFrame]:
    """Adds each frame's transform, smoothed with a fixed lag; frames without a face keep None."""
    smoother = TransformSmoother(fps, spec)
    waiting: deque[SourceFrame] = deque()

    def ready(transforms: list[FloatArray]) -> Iterator[SourceFrame]:
        for transform in transforms:
            frame = waiting.popleft()
            yield frame if frame.transform is None else replace(frame, transform=transform)

    for frame, face in sightings:
        if frame.opens_shot:
            yield from ready(smoother.flush())
        if face is None:
            waiting.append(replace(frame, strength=0.0))
        else:
            pose = head_pose(face.points, face.topology)
            transform = estimate_transform(face.points, face.topology, spec)
            waiting.append(
                replace(
                    frame,
                    transform=_at_true_size(transform, pose, spec),
                    opening=mouth_opening(face.points, face.topology),
                    lips=lip_points(face.points, face.topology),
                    pose=pose,
                    outline=cv2.convexHull(face.points)[:, 0].astype(np.float32),
                    strength=min(frontality(face.points, face.topology), _in_view(frame, face)),
                )
            )
        yield from ready(smoother.push(waiting[-1].transform))
    yield from ready(smoother.flush())


def _at_true_size(transform: FloatArray, pose: FloatArray, spec: AVSpec) -> FloatArray:
    """The eyes of a head that turns lie closer together, but its mouth and chin are as large."""
    share = np.cos(np.radians(np.nan_to_num(pose[0])))
    nose = np.array([0.5, NOSE_LINE]) * spec.face_size
    scaled = share * transform
    scaled[:, 2] += (1 - share) * nose
    return scaled.astype(np.float32)


def _in_view(frame: SourceFrame, face: Face) -> float:
    """1 where a face is in the picture, falling to 0 where two fifths of it are outside."""
    height, width = frame.image.shape[:2]
    box = face.box
    inside_x = min(box.x1, width) - max(box.x0, 0)
    inside_y = min(box.y1, height) - max(box.y0, 0)
    share = min(inside_x / box.width, inside_y / box.height)
    return min(1.0, max(0.0, (share - _LEAST_IN_VIEW) / (_IN_VIEW - _LEAST_IN_VIEW)))


def faded(frames: Iterable[SourceFrame], fps: Fraction) -> Iterator[SourceFrame]:
    """Lets strength rise and fall over some frames, where a face comes, goes or turns away.

    It falls before the face is gone, for the frames ahead are known. A shot begins and ends at full
    strength: there the whole picture changes.
    """
    reach = max(1, round(_FADE_S * fps))
    near: deque[SourceFrame] = deque()
    done = 0

    def ready(count: int) -> Iterator[SourceFrame]:
        nonlocal done
        while done < count:
            strength = min(
                frame.strength + abs(place - done) / (reach + 1) for place, frame in enumerate(near)
            )
            shown = near[done].transform is not None and strength > 0
            transform = near[done].transform if shown else None
            yield replace(near[done], strength=min(1.0, strength), transform=transform)
            done += 1
        while done > reach:
            near.popleft()
            done -= 1

    for frame in frames:
        if frame.opens_shot:
            yield from ready(len(near))
            near.clear()
            done = 0
        near.append(frame)
        yield from ready(len(near) - reach)
    yield from ready(len(near))


def layered(tracks: Iterable[Iterable[SourceFrame]]) -> Iterator[SourceFrame]:
    """Tracks of the same pictures, side by side: each picture once for every face to speak."""
    for frames in zip(*tracks, strict=True):
        speaking = [frame for frame in frames if frame.transform is not None] or frames[:1]
        for number, frame in enumerate(speaking, 1):
            yield replace(frame, is_last=number == len(speaking))
