"""Select the reference of each video frame: the face image that is the generator's input.

Memory is bounded: a second of frames and a limited number of references are kept.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from talkinghead.features.faces.alignment import (
    chain_transforms,
    invert,
    transform_points,
    transform_scale,
)
from talkinghead.features.faces.head_pose import head_turn
from talkinghead.features.faces.image_averaging import average_onto, nearest_lips
from talkinghead.features.faces.tracker import FORGET_FRAMES
from talkinghead.media.decoding.video_image import crop_image
from talkinghead.predict.compositing.mouth_region import box_to_image
from talkinghead.predict.compositing.overlays import remove_overlay
from talkinghead.predict.source.inner_lips import refine_inner_lips
from talkinghead.predict.source.mouth_covering import outlier_fraction
from talkinghead.predict.source.source_frame import PreviousReference, Reference, SourceFrame
from talkinghead.types import AVSpec, FloatArray, UInt8Array

_MAX_REFERENCE_BYTES = 128 * 2**20
_MAX_REFERENCES = 12
_WINDOW_S = 1
# Duration of the upcoming video whose head poses are compared with a reference.
_POSE_WINDOW_S = Fraction(2, 5)
# Smaller head turns are ignored, because they are within the measurement error.
_MIN_TURN_DEG = 2.0
# Costs in degrees of head turn: of a mouth opening of 1, of a mouth that is fully covered, and of
# half the contrast of the upcoming frames (a dark or blurred image).
_OPENING_COST_DEG, _COVERING_COST_DEG, _CONTRAST_COST_DEG = 120.0, 120.0, 8.0
# A reference is replaced if its covering exceeds that of an upcoming frame by more than this.
_MAX_COVERING = 0.1
# Missing contrast that has no cost, as a binary logarithm.
_CONTRAST_TOLERANCE = 0.4
# Maximum fraction of the face in which averaged images may differ by an object.
_MAX_OBJECT_FRACTION = 0.05
# Minimum reduction of the cost for which a reference is replaced.
_MIN_GAIN_DEG = 2.0
_FADE_S = Fraction(3, 25)
# Margin of the part of a frame that a reference contains, as a fraction of the averaged area.
_FACE_MARGIN = 0.25
# Side of the canonical face in pixels from which on a reference is averaged only around the mouth,
# whose texture is used at full size, and the margin as a fraction of the mouth box.
_LARGE_FACE_PX, _MOUTH_MARGIN = 640, 0.1
# Maximum number of images that are averaged with a reference, and for a large face, whose images
# take long.
_IMAGES, _LARGE_FACE_IMAGES = 15, 2


class ClosestPosePolicy:
    """A policy that selects references with a similar head pose and a closed mouth in a shot.

    The candidates are the upcoming frames and earlier references of the shot. The reference changes
    when the head turns, because a warp cannot reveal parts of the face that were hidden; the
    previous reference fades out. Noise in a new reference is reduced by averaging it with upcoming
    frames of similar lips.

    Args:
        spec: the generator's AVSpec.
        fps: frame rate of the video.
    """

    def __init__(self, spec: AVSpec, fps: Fraction) -> None:
        self._spec = spec
        self._num_pose_frames = max(1, round(_POSE_WINDOW_S * fps))
        self._num_fade_frames = round(_FADE_S * fps)
        self._references: list[SourceFrame] = []
        self._past_colours: deque[FloatArray | None] = deque(maxlen=round(_WINDOW_S * fps) or 1)
        self._previous: Reference | None = None
        self._num_shown = self._num_fade_frames

    def select(self, upcoming: Sequence[SourceFrame]) -> tuple[Reference, PreviousReference | None]:
        """Return the reference for the first of the upcoming frames.

        Args:
            upcoming: the frame and those of the next second in the same shot that contain the
                face. Successive calls advance by one frame.

        Returns:
            The reference, and during a transition the previous reference with its blend weight.
        """
        self._num_shown += 1
        if self._num_shown > self._num_fade_frames:
            self._previous = None
            self._update(upcoming)
        self._past_colours.append(upcoming[0].colours)
        reference = self._references[-1].reference
        assert reference is not None
        if self._previous is None:
            return reference, None
        weight = 1 - self._num_shown / (self._num_fade_frames + 1)
        return reference, PreviousReference(self._previous, weight)

    def _update(self, upcoming: Sequence[SourceFrame]) -> None:
        """Make the best candidate the current reference if it is sufficiently better."""
        current = self._references[-1] if self._references else None
        if current is not None and not self._is_unsuitable(current, upcoming):
            return
        min_strength = max(f.strength for f in upcoming) if current is None else current.strength
        visible = [frame for frame in upcoming if frame.strength >= min_strength]
        usual = self._usual_colours(upcoming)

        def cost_deg(frame: SourceFrame) -> float:
            return self._cost_deg(frame, upcoming) + _object_cost_deg(frame, usual)

        best = min([*self._references, *visible], key=cost_deg)
        if current is not None:
            if cost_deg(best) > cost_deg(current) - _MIN_GAIN_DEG:
                return
            self._previous, self._num_shown = current.reference, 1
        if best in self._references:
            self._references.remove(best)
        else:
            best = _as_reference(best, visible, self._spec)
        max_references = min(_MAX_REFERENCES, max(2, _max_images(best)))
        self._references = [*self._references, best][-max_references:]

    def _usual_colours(self, upcoming: Sequence[SourceFrame]) -> FloatArray | None:
        """Return the median colours of about as many past as upcoming frames.

        Objects that appear later and stay, such as a caption, are not usual before they appear.
        """
        past = self._past_colours
        num_upcoming = max(len(past), self._num_pose_frames) if past else len(upcoming)
        near = [*past, *(frame.colours for frame in upcoming[:num_upcoming])]
        known = [colours for colours in near if colours is not None]
        return np.median(known, axis=0) if known else None

    def _is_unsuitable(self, current: SourceFrame, upcoming: Sequence[SourceFrame]) -> bool:
        """Return whether the head has turned, or upcoming frames show the face more clearly."""
        covering = current.covering - min(frame.covering for frame in upcoming)
        return (
            covering > _MAX_COVERING
            or _missing_contrast(current, upcoming) > 0
            or self._turn_deg(current, upcoming) >= _MIN_GAIN_DEG
        )

    def _cost_deg(self, candidate: SourceFrame, upcoming: Sequence[SourceFrame]) -> float:
        return (
            self._turn_deg(candidate, upcoming)
            + _OPENING_COST_DEG * candidate.opening
            + _COVERING_COST_DEG * candidate.covering
            + _CONTRAST_COST_DEG * _missing_contrast(candidate, upcoming)
        )

    def _turn_deg(self, candidate: SourceFrame, upcoming: Sequence[SourceFrame]) -> float:
        """Return the mean head turn in degrees from the candidate to the first upcoming frames."""
        poses = [f.pose for f in upcoming[: self._num_pose_frames] if f.pose is not None]
        if candidate.pose is None or not poses:
            return 0.0
        turn_deg = np.linalg.norm(head_turn(np.stack(poses), candidate.pose)[:, :2], axis=1)
        return float((turn_deg - _MIN_TURN_DEG).clip(0).mean())


def _object_cost_deg(candidate: SourceFrame, usual: FloatArray | None) -> float:
    """Return the cost of an object that passes in front of the face, such as a hand."""
    if candidate.colours is None or usual is None:
        return 0.0
    return _COVERING_COST_DEG * outlier_fraction(candidate.colours, usual)


def _missing_contrast(candidate: SourceFrame, upcoming: Sequence[SourceFrame]) -> float:
    """Return log2 of the contrast of upcoming frames over the candidate's, minus the tolerance."""
    ratio = max(frame.contrast for frame in upcoming) / max(candidate.contrast, 1e-3)
    return max(0.0, math.log2(max(ratio, 1e-3)) - _CONTRAST_TOLERANCE)


def add_references(
    frames: Iterable[SourceFrame], spec: AVSpec, fps: Fraction
) -> Iterator[SourceFrame]:
    """Add a reference to every frame that contains the face.

    The selection restarts in each shot, and when a face returns after the tracker has discarded it,
    because the face may belong to another person.
    """
    policy = ClosestPosePolicy(spec, fps)
    upcoming: deque[SourceFrame] = deque()
    num_missing = 0

    def pop_frame() -> SourceFrame:
        with_face = [frame for frame in upcoming if frame.transform is not None]
        frame = upcoming.popleft()
        if frame.transform is None:
            return frame
        reference, previous = policy.select(with_face)
        return replace(frame, reference=reference, previous_reference=previous)

    for frame in frames:
        num_missing = num_missing + 1 if frame.transform is None else 0
        if frame.starts_shot or num_missing > FORGET_FRAMES:
            while upcoming:
                yield pop_frame()
            policy = ClosestPosePolicy(spec, fps)
        upcoming.append(frame)
        if len(upcoming) >= min(round(_WINDOW_S * fps), max(1, _max_images(frame))):
            yield pop_frame()
    while upcoming:
        yield pop_frame()


def _max_images(frame: SourceFrame) -> int:
    """Return the maximum number of images of the frame's size that are kept in memory."""
    return _MAX_REFERENCE_BYTES // frame.image.nbytes


def _as_reference(best: SourceFrame, frames: list[SourceFrame], spec: AVSpec) -> SourceFrame:
    """Return a copy of a frame with a reference averaged from frames of similar lips."""
    frames = [frame for frame in frames if _is_similar(frame, best)]
    transforms = [_not_none(frame.transform) for frame in frames]
    canonical = zip(frames, transforms, strict=True)
    lips = np.stack([transform_points(_not_none(frame.lips), t) for frame, t in canonical])
    index = frames.index(best)
    image, transform, origin_xy = _part(best, transforms[index], _face_corners(spec))
    to_image = invert(transform)
    is_large = spec.face_size * transform_scale(to_image) >= _LARGE_FACE_PX
    near = nearest_lips(lips, index, _LARGE_FACE_IMAGES if is_large else _IMAGES)
    area = _averaged_corners(spec, to_image)
    corners = transform_points(area, to_image)
    limits = np.array(image.shape[1::-1])
    (x0, y0), (x1, y1) = np.clip([corners.min(0), corners.max(0)], 0, limits).astype(int)
    origin = np.array([[0, 0, x0], [0, 0, y0]], np.float32)
    parts = (_part(frames[i], transforms[i], area)[:2] for i in near)
    others = ((part, chain_transforms(to_face, to_image) - origin) for part, to_face in parts)
    averaged = average_onto(image[y0:y1, x0:x1], others)
    image = image.copy()
    image[y0:y1, x0:x1] = averaged
    image = remove_overlay(image, box_to_image(transform, spec))
    lips_xy = refine_inner_lips(image, (_not_none(best.lips) - origin_xy).astype(np.float32))
    outline = None if best.outline is None else (best.outline - origin_xy).astype(np.float32)
    reference = Reference(image, transform, lips_xy, best.pose, outline, time_s=best.time_s)
    return replace(best, image=image, reference=reference)


def _part(
    frame: SourceFrame, transform: FloatArray, corners: FloatArray
) -> tuple[UInt8Array, FloatArray, FloatArray]:
    """Return the part of a frame around an area, uint8 [h, w, 3], or an array as a whole.

    `corners` [4, 2] are those of the area in the canonical face. The other values are the transform
    from the pixels of the part to the canonical face, and its first pixel (x, y) in the frame.
    """
    if isinstance(frame.image, np.ndarray):
        return frame.image, transform, np.zeros(2, np.float32)
    margin = _FACE_MARGIN * (corners - corners.mean(0)) * 2
    corners = transform_points(corners + margin, invert(transform))
    limits = np.array(frame.image.shape[1::-1])
    low = np.floor(corners.min(0)).astype(int).clip(0, limits - 1)
    high = np.ceil(corners.max(0)).astype(int).clip(low + 1, limits)
    columns, rows = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    shift = np.column_stack([np.eye(2), low]).astype(np.float32)
    part = crop_image(frame.image, rows, columns)
    return part, chain_transforms(shift, transform), low.astype(np.float32)


def _averaged_corners(spec: AVSpec, to_image: FloatArray) -> FloatArray:
    """Return the corners [4, 2], in the canonical face, of the area in which images are averaged.

    `to_image` maps the canonical face to the image.
    """
    if spec.face_size * transform_scale(to_image) < _LARGE_FACE_PX:
        return _face_corners(spec)
    margin = _MOUTH_MARGIN * spec.mouth_side
    sides = -margin, spec.mouth_side + margin
    return np.array(
        [(spec.mouth_x + x, spec.mouth_y + y) for x in sides for y in sides], np.float32
    )


def _face_corners(spec: AVSpec) -> FloatArray:
    """Return the corners [4, 2] of the canonical face."""
    return np.array([(x, y) for x in (0, spec.face_size) for y in (0, spec.face_size)], np.float32)


def _is_similar(frame: SourceFrame, best: SourceFrame) -> bool:
    """Return whether a frame shows the face as the best frame does, without another object."""
    if frame.colours is None or best.colours is None:
        return frame.strength == best.strength
    is_free = outlier_fraction(frame.colours, best.colours) < _MAX_OBJECT_FRACTION
    return is_free and frame.strength == best.strength


def _not_none(points: FloatArray | None) -> FloatArray:
    assert points is not None
    return points
