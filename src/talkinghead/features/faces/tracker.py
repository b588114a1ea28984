"""Follows faces through a video: stays with the same people, starts afresh at cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.errors import FaceNotFoundError
from talkinghead.features.faces.alignment import RIGID_POINTS, estimate_transform, smooth_transforms
from talkinghead.features.faces.blazeface import overlap
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.types import AVSpec, Box, Face, FaceTrack, FloatArray, UInt8Array, VideoFrame

# A cut changes the whole picture at once, in mean grey levels of a thumbnail. Measured: a talking
# head before a still background stays below 1, a moving camera below 13; shots of one scene differ
# by 9 or more, of different ones by 20.
CUT_FLOOR, CUT_CEILING = 8.0, 20.0
CUT_RATIO, CUT_RATIO_ABOVE = 10.0, 3.0
USUAL_AT_FIRST = 2.0
_THUMBNAIL_SAMPLES = 180
# A person who has been gone for this many frames is forgotten: the largest face is then taken,
# wherever it is, and the picture is searched less often, for a search that finds nothing is slow.
FORGET_FRAMES = 25
SEARCH_EVERY = 5


class CutDetector:
    """Tells a cut from motion: the difference of thumbnails against what was usual just before."""

    def __init__(self) -> None:
        self._previous: FloatArray | None = None
        self._usual = USUAL_AT_FIRST

    def update(self, image: UInt8Array) -> bool:
        """True when `image`, uint8 [H, W, 3], opens a new shot; the first frame of all does not."""
        # Of a large picture every so many pixels will do: averaging all of them is slow.
        step = max(1, min(image.shape[:2]) // _THUMBNAIL_SAMPLES)
        thumbnail = cv2.resize(
            image[::step, ::step], (32, 32), interpolation=cv2.INTER_AREA
        ).astype(np.float32)
        previous, self._previous = self._previous, thumbnail
        if previous is None:
            return False
        difference = float(np.abs(thumbnail - previous).mean())
        threshold = max(
            CUT_FLOOR, min(CUT_RATIO * self._usual, CUT_CEILING), CUT_RATIO_ABOVE * self._usual
        )
        if difference > threshold:
            self._usual = USUAL_AT_FIRST
            return True
        self._usual += 0.3 * (difference - self._usual)
        return False


Choice: TypeAlias = Callable[[list[Face], Fraction], Face | None]
"""Picks the face to follow from those that are seen, largest first, at a moment of the video."""


def largest(faces: list[Face], time_s: Fraction) -> Face | None:
    """The largest face."""
    return faces[0] if faces else None


class FromTheLeft:
    """The face of a number, counted from the left, from 0; None where fewer are seen."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, faces: list[Face], time_s: Fraction) -> Face | None:
        """See `Choice`."""
        ordered = sorted(faces, key=lambda face: centre(face.box))
        return ordered[self.index] if self.index < len(ordered) else None


class _Person:
    """Where somebody was last seen, and for how many frames they have been gone."""

    def __init__(self) -> None:
        self.last: Face | None = None
        self.missed = 0
        self._step = np.zeros(2, np.float32)

    @property
    def expected(self) -> Face:
        """The face where it will be if it goes on as it did: landmarks err where it is not."""
        assert self.last is not None
        (x, y), box = self._step.tolist(), self.last.box
        ahead = Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y)
        return replace(self.last, box=ahead, points=self.last.points + self._step)

    def see(self, face: Face | None) -> None:
        """Takes the next frame's face, None where the person is not seen."""
        if face is not None:
            goes_on = self.last is not None and not self.missed
            before = self.last.points if goes_on and self.last is not None else face.points
            self._step = _steady(face.points, face.topology) - _steady(before, face.topology)
            self.last, self.missed = face, 0
            return
        self.missed += 1
        if self.missed > FORGET_FRAMES:
            self.last = None

    def find(self, faces: list[Face]) -> Face | None:
        """The person among others: who moved by up to a face's width while unseen."""
        assert self.last is not None
        last = self.last.box
        reach = Box(
            last.x0 - last.width, last.y0 - last.height, last.x1 + last.width, last.y1 + last.height
        )
        near = [face for face in faces if _inside(face.box, reach)]
        return min(near, key=lambda face: _distance(face.box, last), default=None)


class FaceTracker:
    """Gives the chosen face of each frame in turn: the largest at first, then the same person's.

    Args:
        detector: finds and follows faces.
        redetect_every: after so many frames the whole picture is searched again, lest the landmarks
            have slid onto something that is no face.
        choose: picks the person, wherever nobody is followed.

    Attributes:
        cut: whether the last frame opened a new shot, so that all smoothing must start afresh.
    """

    def __init__(
        self, detector: FaceDetector, redetect_every: int = 50, choose: Choice = largest
    ) -> None:
        self.detector = detector
        self.redetect_every = redetect_every
        self.cut = False
        self._choose = choose
        self._cuts = CutDetector()
        self._since_detection = 0
        self.reset()

    def reset(self) -> None:
        """Forgets the person: the next frame opens a new shot."""
        self._person = _Person()

    def update(self, image: UInt8Array, time_s: Fraction = Fraction(0)) -> Face | None:
        """The chosen face in the next frame, uint8 [H, W, 3] RGB; None when it is not seen."""
        self.cut = self._cuts.update(image)
        if self.cut:
            self.reset()
        face = self._follow(image) or self._find(image, time_s)
        self._person.see(face)
        return face

    def _follow(self, image: UInt8Array) -> Face | None:
        """The face from its last region; None when it is lost, or a search finds others only."""
        if self._person.last is None or self._person.missed:
            return None
        face = self.detector.track(image, self._person.expected)
        self._since_detection += 1
        if face and self._since_detection >= self.redetect_every:
            self._since_detection = 0
            faces = self.detector.detect(image)
            if faces and not _is_among(face, faces):
                return None
        return face

    def _find(self, image: UInt8Array, time_s: Fraction) -> Face | None:
        """The followed person among all faces, or the chosen one where nobody is followed."""
        self._since_detection = 0
        missed = self._person.missed
        if missed > FORGET_FRAMES and missed % SEARCH_EVERY:
            return None
        faces = self.detector.detect(image)
        if self._person.last is None:
            return self._choose(faces, time_s)
        return self._person.find(faces)


class MultiTracker:
    """Follows several people side by side, each in a slot of its own until forgotten.

    Args:
        detector: finds and follows faces.
        max_faces: slots; the largest faces come first.
        redetect_every: after so many frames the whole picture is searched, for who has come and for
            landmarks that have slid off.

    Attributes:
        cut: whether the last frame opened a new shot.
    """

    def __init__(
        self, detector: FaceDetector, max_faces: int = 4, redetect_every: int = 25
    ) -> None:
        self.detector = detector
        self.redetect_every = redetect_every
        self.cut = False
        self._cuts = CutDetector()
        self._people = [_Person() for _ in range(max_faces)]
        self.reset()

    def reset(self) -> None:
        """Forgets everybody: the next frame opens a new shot."""
        self._people = [_Person() for _ in self._people]
        self._since_detection = self.redetect_every

    def update(self, image: UInt8Array, time_s: Fraction = Fraction(0)) -> list[Face | None]:
        """Each slot's face in the next frame, uint8 [H, W, 3] RGB; None where it is not seen."""
        self.cut = self._cuts.update(image)
        if self.cut:
            self.reset()
        self._since_detection += 1
        faces = self._follow(image)
        is_lost = any(
            person.last is not None and face is None
            for person, face in zip(self._people, faces, strict=True)
        )
        if is_lost or self._since_detection >= self.redetect_every:
            self._since_detection = 0
            self._search(image, faces)
        for person, face in zip(self._people, faces, strict=True):
            person.see(face)
        return faces

    def _follow(self, image: UInt8Array) -> list[Face | None]:
        """Everybody from their last regions; of two in one place the first stays."""
        faces: list[Face | None] = []
        for person in self._people:
            seen = person.last is not None and not person.missed
            face = self.detector.track(image, person.expected) if seen else None
            twice = face is not None and _is_among(face, faces, 0.5)
            faces.append(None if twice else face)
        return faces

    def _search(self, image: UInt8Array, faces: list[Face | None]) -> None:
        """Drops what has slid off, finds the lost again, and gives newcomers the free slots."""
        found = self.detector.detect(image)
        for slot, face in enumerate(faces):
            if face and found and not _is_among(face, found):
                faces[slot] = None
        for is_lost in (True, False):
            for slot, person in enumerate(self._people):
                others = [face for face in found if not _is_among(face, faces, 0.3)]
                if faces[slot] is None and others and (person.last is not None) is is_lost:
                    faces[slot] = person.find(others) if is_lost else others[0]


def track_clip(
    frames: Iterable[VideoFrame | UInt8Array], detector: FaceDetector, spec: AVSpec, fps: Fraction
) -> FaceTrack:
    """Follow the chosen face through a whole clip. Only landmarks are kept, never pictures.

    Args:
        frames: the clip's pictures, uint8 [H, W, 3] RGB, or `VideoFrame`s.
        detector: finds and follows faces.
        spec: the canonical face.
        fps: frames per second, for the smoothing.

    Returns:
        The track. Frames without the face get a transform interpolated from the rest of the shot.

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
    filled = _interpolate(smoothed, [0, *cuts, len(faces)])
    return FaceTrack(filled, points, found, known.topology)


def _interpolate(transforms: FloatArray, edges: list[int]) -> FloatArray:
    """Fill in NaN linearly within each shot; one without a face is filled from its neighbours."""
    known = np.isfinite(transforms[:, 0, 0])
    filled = transforms.copy()
    for start, stop in pairwise(edges):
        shot = slice(start, stop) if known[start:stop].any() else slice(None)
        filled[start:stop] = _fill(
            np.arange(start, stop), np.arange(len(known))[shot][known[shot]], transforms
        )
    return filled


def _fill(
    times: npt.NDArray[np.int_], known: npt.NDArray[np.int_], transforms: FloatArray
) -> FloatArray:
    # Entry by entry will do: what lies between two similarities is a similarity.
    columns = [
        np.interp(times, known, column) for column in transforms[known].reshape(len(known), 6).T
    ]
    return np.stack(columns, axis=1).reshape(-1, 2, 3).astype(np.float32)


def _steady(points: FloatArray, topology: str) -> FloatArray:
    """The middle of the points that speech does not move: float32 [2]."""
    return np.asarray(points[list(RIGID_POINTS[topology])].mean(0), dtype=np.float32)


def _is_among(face: Face, others: Sequence[Face | None], least: float = 0.1) -> bool:
    """Whether a face's box shares so much (intersection over union) with one of the others'."""
    boxes = [other.box for other in others if other]
    return bool(boxes) and float(overlap(np.array(face.box), np.array(boxes)).max()) >= least


def centre(box: Box) -> tuple[float, float]:
    """The middle (x, y) of a box, in pixels."""
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def _inside(box: Box, reach: Box) -> bool:
    x, y = centre(box)
    return reach.x0 <= x <= reach.x1 and reach.y0 <= y <= reach.y1


def _distance(box: Box, other: Box) -> float:
    return float(np.hypot(*np.subtract(centre(box), centre(other))))
