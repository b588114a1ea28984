"""Tracking of faces through a video, with resets at shot cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from talkinghead.errors import FaceNotFoundError
from talkinghead.features.faces.alignment import RIGID_POINTS, estimate_transform
from talkinghead.features.faces.blazeface import overlap
from talkinghead.features.faces.detector import FaceDetector, detect_faces, track_face
from talkinghead.features.faces.transform_smoothing import fill_gaps, smooth_transforms
from talkinghead.features.shot_detection import ShotDetector
from talkinghead.media.decoding.video_image import ImageLike
from talkinghead.types import AVSpec, Box, Face, FaceTrack, FloatArray, UInt8Array, VideoFrame

FORGET_FRAMES = 25
"""Number of frames without the tracked face after which another face may be selected."""
# After FORGET_FRAMES only every fifth frame is searched, as detection is slow if it finds no face.
_SEARCH_EVERY = 5
# Ratio by which the size of a tracked face may differ from that of the detected one.
_MAX_RESIZED = 1.07


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """The faces that were found in an image, for the selection of one of them.

    Attributes:
        faces: all faces, largest first.
        image: the image.
        time_s: time of the image in the video.
        taken: faces that are tracked already.
    """

    faces: list[Face]
    image: ImageLike
    time_s: Fraction = Fraction(0)
    taken: Sequence[Face | None] = ()


FaceSelector: TypeAlias = Callable[[FoundFaces], Face | None]
"""Function that returns the face to track, None for none of the faces."""


def select_largest_face(found: FoundFaces) -> Face | None:
    """Return the largest face that is not tracked yet, or None if there is no such face."""
    return next((face for face in found.faces if not _is_among(face, found.taken, 0.3)), None)


class SelectFaceFromLeft:
    """Face selector that returns the face at an index, counted from the left."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, found: FoundFaces) -> Face | None:
        """Return the face at the index, or None if there are fewer faces."""
        ordered = sorted(found.faces, key=lambda face: face.box.centre)
        return ordered[self.index] if self.index < len(ordered) else None


class _Person:
    """Last known face of a tracked person, and the number of frames since it was lost."""

    def __init__(self) -> None:
        self.last: Face | None = None
        self.missed = 0
        self._step = np.zeros(2, np.float32)
        self._detected: Face | None = None  # The face at the last detection.

    @property
    def expected(self) -> Face:
        """Last face, moved to its extrapolated position in the next frame."""
        assert self.last is not None
        (x, y), box = self._step.tolist(), self.last.box
        ahead = Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y)
        return replace(self.last, box=ahead, points=self.last.points + self._step)

    def update(self, face: Face | None) -> None:
        """Set the person's face in the next frame, or None if the person is not visible."""
        if face is not None:
            is_continued = self.last is not None and not self.missed
            before = self.last if is_continued and self.last is not None else face
            self._step = _rigid_centre(face) - _rigid_centre(before)
            self._detected = self._detected if is_continued else face
            self.last, self.missed = face, 0
            return
        self.missed += 1
        if self.missed > FORGET_FRAMES:
            self.last = None

    def has_drifted(self, face: Face | None) -> bool:
        """Return whether the landmarks of a tracked face have probably drifted off the face."""
        return bool(face and self._detected and _is_resized(face, self._detected))

    def corrected(self, face: Face, found: list[Face]) -> Face:
        """Return a tracked face, or the detected one if the tracked one has another size."""
        detected = self.find(found)
        face = detected if detected and _is_resized(face, detected) else face
        self._detected = face
        return face

    def find(self, faces: list[Face]) -> Face | None:
        """Return the nearest face within one face width of the last position, or None."""
        assert self.last is not None
        last = self.last.box
        reach = Box(
            last.x0 - last.width, last.y0 - last.height, last.x1 + last.width, last.y1 + last.height
        )
        near = [face for face in faces if _inside(face.box, reach)]
        return min(near, key=lambda face: _distance(face.box, last), default=None)


class FaceTracker:
    """Tracker of one face through a video.

    Args:
        detector: detects and tracks faces.
        redetect_every: frames between detections in the whole image, which detect landmarks that
            have drifted off the face.
        select: selects the face to track at the start of a shot and after a loss.

    Attributes:
        cut: whether the last frame started a new shot, so that smoothing must be reset.

    Example:
        >>> tracker = FaceTracker(build_detector())
        >>> faces = [tracker.update(frame.image) for frame in read_video("speaker.mp4")]
    """

    def __init__(
        self,
        detector: FaceDetector,
        redetect_every: int = 50,
        select: FaceSelector = select_largest_face,
    ) -> None:
        self.detector = detector
        self.redetect_every = redetect_every
        self.cut = False
        self._select = select
        self._shots = ShotDetector()
        self._since_detection = 0
        self.reset()

    @property
    def num_mixed(self) -> int:
        """Number of frames before the cut that also show the new shot."""
        return self._shots.num_mixed

    def reset(self) -> None:
        """Clear the tracked face and start a new shot."""
        self._person = _Person()

    def update(self, image: ImageLike, time_s: Fraction = Fraction(0)) -> Face | None:
        """Return the tracked face in the next frame, or None."""
        self.cut = self._shots.update(image)
        if self.cut:
            self.reset()
        face = self._follow(image) or self._find(image, time_s)
        self._person.update(face)
        return face

    def _follow(self, image: ImageLike) -> Face | None:
        """Track the face near its last position; return None if the face is lost."""
        if self._person.last is None or self._person.missed:
            return None
        face = track_face(self.detector, image, self._person.expected)
        self._since_detection += 1
        is_due = self._since_detection >= self.redetect_every
        if face and (is_due or self._person.has_drifted(face)):
            self._since_detection = 0
            faces = detect_faces(self.detector, image)
            if faces and not _is_among(face, faces):
                return None
            face = self._person.corrected(face, faces)
        return face

    def _find(self, image: ImageLike, time_s: Fraction) -> Face | None:
        """Detect faces and return the tracked one, or the selected one if none is tracked."""
        self._since_detection = 0
        missed = self._person.missed
        if missed > FORGET_FRAMES and missed % _SEARCH_EVERY:
            return None
        faces = detect_faces(self.detector, image)
        if self._person.last is None:
            return self._select(FoundFaces(faces, image, time_s))
        return self._person.find(faces)


class MultiTracker:
    """Tracker of several faces, each of which has the same slot in the output in every frame.

    Slots with a `SelectFaceFromLeft` are assigned again if a further face appears in a shot, and
    one of them selects the face of another one.

    Args:
        detector: detects and tracks faces.
        max_faces: number of slots; the largest faces are tracked.
        redetect_every: frames between detections in the whole image, for new faces and landmarks
            that have drifted off.
        selectors: in place of `max_faces`, a selector for each slot. Faces that they miss are
            searched in every frame for a second.

    Attributes:
        cut: whether the last frame started a new shot.
        exchanged: slots that another face has taken over in the last frame.
    """

    def __init__(
        self,
        detector: FaceDetector,
        max_faces: int = 4,
        redetect_every: int = 25,
        selectors: Sequence[FaceSelector] | None = None,
    ) -> None:
        self.detector = detector
        self.redetect_every = redetect_every
        self.cut = False
        self._is_eager = selectors is not None
        self._selectors = list(selectors or [select_largest_face] * max_faces)
        self._from_left = [
            slot
            for slot, select in enumerate(self._selectors)
            if isinstance(select, SelectFaceFromLeft)
        ]
        self.exchanged: set[int] = set()
        self._shots = ShotDetector()
        self.reset()

    @property
    def num_slots(self) -> int:
        """Number of faces that are tracked at the same time."""
        return len(self._selectors)

    @property
    def num_mixed(self) -> int:
        """Number of frames before the cut that also show the new shot."""
        return self._shots.num_mixed

    def reset(self) -> None:
        """Clear all tracked faces and start a new shot."""
        self._people = [_Person() for _ in self._selectors]
        self._num_counted = 0  # Number of faces when they were last counted from the left.
        self._since_detection = self.redetect_every

    def update(self, image: ImageLike, time_s: Fraction = Fraction(0)) -> list[Face | None]:
        """Return the face of each slot in the next frame, or None."""
        self.cut = self._shots.update(image)
        if self.cut:
            self.reset()
        self._since_detection += 1
        self.exchanged.clear()
        faces = self._follow(image)
        people = zip(self._people, faces, strict=True)
        is_lost = any(
            face is None and (person.last is not None or self._is_awaited(person))
            for person, face in people
        )
        is_lost |= any(map(_Person.has_drifted, self._people, faces))
        if is_lost or self._since_detection >= self.redetect_every:
            self._since_detection = 0
            self._search(image, faces, time_s)
        for person, face in zip(self._people, faces, strict=True):
            person.update(face)
        return faces

    def _follow(self, image: ImageLike) -> list[Face | None]:
        """Track all faces near their last positions; drop faces that overlap an earlier one."""
        faces: list[Face | None] = []
        for person in self._people:
            visible = person.last is not None and not person.missed
            face = track_face(self.detector, image, person.expected) if visible else None
            is_duplicate = face is not None and _is_among(face, faces, 0.5)
            faces.append(None if is_duplicate else face)
        return faces

    def _is_awaited(self, person: _Person) -> bool:
        return self._is_eager and person.missed < FORGET_FRAMES

    def _search(self, image: ImageLike, faces: list[Face | None], time_s: Fraction) -> None:
        """Detect faces, drop drifted faces, find lost faces and put new faces into free slots."""
        found = detect_faces(self.detector, image)
        for slot, face in enumerate(faces):
            if face and found and not _is_among(face, found):
                faces[slot] = None
            elif face:
                faces[slot] = self._people[slot].corrected(face, found)
        for is_lost in (True, False):
            for slot, person in enumerate(self._people):
                others = [face for face in found if not _is_among(face, faces, 0.3)]
                if (
                    faces[slot] is not None
                    or not others
                    or (person.last is not None) is not is_lost
                ):
                    continue
                if is_lost:
                    faces[slot] = person.find(others)
                    continue
                self._select(slot, faces, FoundFaces(found, image, time_s, tuple(faces)))

    def _select(self, slot: int, faces: list[Face | None], found: FoundFaces) -> None:
        """Put the selected face into a free slot, unless another slot tracks the face already."""
        selected = self._selectors[slot](found)
        if selected is None:
            return
        is_free = not _is_among(selected, faces, 0.3)
        if is_free:
            faces[slot] = selected
        if slot not in self._from_left:
            return
        counted = [faces[index] for index in self._from_left]
        if not is_free and _is_among(selected, counted, 0.3):
            if len(found.faces) <= self._num_counted:
                return
            self._count_from_left(faces, found)
        self._num_counted = len(found.faces)

    def _count_from_left(self, faces: list[Face | None], found: FoundFaces) -> None:
        """Assign the faces to the slots that count them from the left, as in a new shot."""
        before = list(faces)
        for slot in self._from_left:
            faces[slot] = None
        for slot in self._from_left:
            selected, last = self._selectors[slot](found), self._people[slot].last
            if selected is None or _is_among(selected, faces, 0.3):
                continue
            if last is None or _is_among(selected, [before[slot] or last], 0.3):
                faces[slot] = before[slot] or selected
            else:
                faces[slot], self._people[slot] = selected, _Person()
                self.exchanged.add(slot)


def track_clip(
    frames: Iterable[VideoFrame | UInt8Array], detector: FaceDetector, spec: AVSpec, fps: Fraction
) -> FaceTrack:
    """Track the largest face through a clip; frames are processed one at a time.

    Transforms are smoothed, and interpolated within the shot in frames without the face.

    Raises:
        FaceNotFoundError: no frame shows a face, or there is no frame.
    """
    tracker = FaceTracker(detector)
    faces: list[Face | None] = []
    cuts: list[int] = []
    for frame in frames:
        faces.append(tracker.update(frame.image if isinstance(frame, VideoFrame) else frame))
        if tracker.cut:
            cuts.append(len(faces) - 1)
    found = np.array([face is not None for face in faces], dtype=np.bool_)
    if not found.any():
        raise FaceNotFoundError(
            f"no face was found in any of {len(faces)} frames; expected one that looks towards the "
            "camera: use another clip, or crop it closer to the face"
        )
    known = next(face for face in faces if face)
    points = np.full((len(faces), *known.points.shape), np.nan, dtype=np.float32)
    transforms = np.full((len(faces), 2, 3), np.nan, dtype=np.float32)
    for index, face in enumerate(faces):
        if face:
            points[index] = face.points
            transforms[index] = estimate_transform(face.points, face.topology, spec)
    smoothed = smooth_transforms(transforms, fps, spec, cuts)
    filled = fill_gaps(smoothed, [0, *cuts, len(faces)])
    return FaceTrack(filled, points, found, known.topology)


def _rigid_centre(face: Face) -> FloatArray:
    """Return the centre float32 [2] of the points that do not move with speech."""
    return np.asarray(face.points[list(RIGID_POINTS[face.topology])].mean(0), dtype=np.float32)


def _is_among(face: Face, others: Sequence[Face | None], least: float = 0.1) -> bool:
    """Return whether the box of a face overlaps another box with an IoU of at least `least`."""
    boxes = [other.box for other in others if other]
    return bool(boxes) and float(overlap(np.array(face.box), np.array(boxes)).max()) >= least


def _is_resized(face: Face, other: Face) -> bool:
    width = other.box.width
    return not width / _MAX_RESIZED < face.box.width < width * _MAX_RESIZED


def _inside(box: Box, reach: Box) -> bool:
    x, y = box.centre
    return reach.x0 <= x <= reach.x1 and reach.y0 <= y <= reach.y1


def _distance(box: Box, other: Box) -> float:
    return float(np.hypot(*np.subtract(box.centre, other.centre)))
