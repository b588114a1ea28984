"""Which pictures of a video's face the model knows: its references.

What is kept is bounded: a second of pictures, and so many references.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from talkinghead.features.faces.alignment import chain_transforms, invert, transform_points
from talkinghead.features.faces.head_pose import head_turn
from talkinghead.features.faces.image_averaging import average_onto, nearest_lips
from talkinghead.features.faces.tracker import FORGET_FRAMES
from talkinghead.predict.source.source_frame import PreviousReference, Reference, SourceFrame
from talkinghead.types import AVSpec, FloatArray, UInt8Array

_REFERENCE_BYTES = 128 * 2**20
_MAX_REFERENCES = 12
_WINDOW_S = 1
# A reference should suit so much of what comes.
_SUIT_S = Fraction(2, 5)
# Turned by less than this is not turned: the pose is not measured more exactly.
_STILL_DEG = 2.0
# By how many degrees a mouth may be turned the further to be closed rather than open by 1.
_OPEN_DEG = 120.0
# By so many degrees another reference must suit better. It comes gradually.
_BETTER_DEG = 2.0
_FADE_S = Fraction(3, 25)


def with_references(
    frames: Iterable[SourceFrame], spec: AVSpec, fps: Fraction
) -> Iterator[SourceFrame]:
    """Adds a reference: of the face's pictures, one that is turned alike and has its mouth closed.

    The choice is among those of the next second and the references that the shot has had. It
    changes where the head turns, for no warp brings what was not to be seen. A reference's noise is
    averaged out with the second's other pictures of the same lips.

    A face that the tracker had forgotten may be another person's: then the choice is made again.
    """
    shot = _Shot(spec, fps)
    ahead: deque[SourceFrame] = deque()
    missing = 0
    for frame in frames:
        missing = missing + 1 if frame.transform is None else 0
        if frame.opens_shot or missing > FORGET_FRAMES:
            yield from shot.rest(ahead)
            shot = _Shot(spec, fps)
        ahead.append(frame)
        if len(ahead) >= min(round(_WINDOW_S * fps), max(1, _room(frame))):
            yield shot.next(ahead)
    yield from shot.rest(ahead)


def _room(frame: SourceFrame) -> int:
    """So many pictures may be kept."""
    return _REFERENCE_BYTES // frame.image.nbytes


class _Shot:
    """The references of one shot: frames of which each has itself as its reference."""

    def __init__(self, spec: AVSpec, fps: Fraction) -> None:
        self._spec = spec
        self._suit_frames = max(1, round(_SUIT_S * fps))
        self._fade_frames = round(_FADE_S * fps)
        self._known: list[SourceFrame] = []
        self._outgoing: Reference | None = None
        self._num_shown = self._fade_frames

    def rest(self, ahead: deque[SourceFrame]) -> Iterator[SourceFrame]:
        """The shot's last pictures with their references."""
        while ahead:
            yield self.next(ahead)

    def next(self, ahead: deque[SourceFrame]) -> SourceFrame:
        """The first of these pictures, which is taken from them, with its reference."""
        faced = [frame for frame in ahead if frame.transform is not None]
        frame = ahead.popleft()
        if frame.transform is None:
            return frame
        self._num_shown += 1
        if self._num_shown > self._fade_frames:
            self._outgoing = None
            self._choose(faced)
        reference = self._known[-1].reference
        if self._outgoing is None:
            return replace(frame, reference=reference)
        weight = 1 - self._num_shown / (self._fade_frames + 1)
        return replace(
            frame, reference=reference, previous_reference=PreviousReference(self._outgoing, weight)
        )

    def _choose(self, faced: list[SourceFrame]) -> None:
        """Puts the reference that suits what comes last of those known; the last one goes out."""
        current = self._known[-1] if self._known else None
        if current is not None and self._turn(current, faced) < _BETTER_DEG:
            return
        least = max(frame.strength for frame in faced) if current is None else current.strength
        seen = [frame for frame in faced if frame.strength >= least]
        best = min([*self._known, *seen], key=lambda frame: self._cost(frame, faced))
        if current is not None:
            if self._cost(best, faced) > self._cost(current, faced) - _BETTER_DEG:
                return
            self._outgoing, self._num_shown = current.reference, 1
        if best in self._known:
            self._known.remove(best)
        else:
            best = _referred(best, seen, self._spec)
        self._known = [*self._known, best][-min(_MAX_REFERENCES, max(2, _room(best))) :]

    def _cost(self, candidate: SourceFrame, faced: list[SourceFrame]) -> float:
        """How ill it suits: degrees, of which an open mouth has some too."""
        return self._turn(candidate, faced) + _OPEN_DEG * candidate.opening

    def _turn(self, candidate: SourceFrame, faced: list[SourceFrame]) -> float:
        """How far, beyond what is still, the first of the faces are turned from it: degrees."""
        poses = [frame.pose for frame in faced[: self._suit_frames] if frame.pose is not None]
        if candidate.pose is None or not poses:
            return 0.0
        turned = np.linalg.norm(head_turn(np.stack(poses), candidate.pose)[:, :2], axis=1)
        return float((turned - _STILL_DEG).clip(0).mean())


def _referred(best: SourceFrame, faced: list[SourceFrame], spec: AVSpec) -> SourceFrame:
    """The frame as its own reference."""
    assert best.transform is not None
    assert best.lips is not None
    picture = _averaged(best, [frame for frame in faced if frame.strength == best.strength], spec)
    reference = Reference(picture, best.transform, best.lips, best.pose)
    return replace(best, image=picture, reference=reference)


def _averaged(best: SourceFrame, faced: Sequence[SourceFrame], spec: AVSpec) -> UInt8Array:
    """The best frame's picture, with less noise where its face is."""
    transforms = [_known(frame.transform) for frame in faced]
    lips = [transform_points(_known(f.lips), t) for f, t in zip(faced, transforms, strict=True)]
    chosen = faced.index(best)
    near = nearest_lips(np.stack(lips), chosen)
    to_picture = invert(transforms[chosen])
    square = np.array([(x, y) for x in (0, spec.face_size) for y in (0, spec.face_size)])
    corners = transform_points(square.astype(np.float32), to_picture)
    limits = np.array(best.image.shape[1::-1])
    (x0, y0), (x1, y1) = np.clip([corners.min(0), corners.max(0)], 0, limits).astype(int)
    corner = np.array([[0, 0, x0], [0, 0, y0]], np.float32)
    others = ((faced[i].image, chain_transforms(transforms[i], to_picture) - corner) for i in near)
    picture = best.image.copy()
    picture[y0:y1, x0:x1] = average_onto(best.image[y0:y1, x0:x1], others)
    return picture


def _known(points: FloatArray | None) -> FloatArray:
    assert points is not None
    return points
