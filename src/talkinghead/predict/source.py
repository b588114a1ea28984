"""The picture's side of a prediction: frames without end, with a transform and a reference.

A photo stands still. A video plays forwards and, where the speech is longer, back again and so on,
for a jump would be seen. Nothing is kept for longer than the smoothing's half second and the choice
of a reference need.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count, islice
from pathlib import Path

from talkinghead.errors import FaceNotFoundError, MediaError
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import FaceTracker
from talkinghead.features.geometry import TransformSmoother, estimate_transform, mouth_opening
from talkinghead.media.reader import read_video
from talkinghead.media.timing import round_half_up
from talkinghead.types import AVSpec, FloatArray, UInt8Array

# Containers round times to their own unit, a millisecond in the coarsest.
_ROUNDING_S = Fraction(1, 1000)
_BLOCK_BYTES = 256 * 2**20
_REFERENCE_BYTES = 128 * 2**20
_REFERENCE_WINDOW_S = 1


@dataclass(frozen=True, eq=False)
class Reference:
    """A picture uint8 [H, W, 3] whose face is the model's reference, and its transform [2, 3]."""

    image: UInt8Array
    transform: FloatArray


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A picture on its way: uint8 [H, W, 3], shown from `time_s` for `duration_s`.

    `transform` float32 [2, 3] is None where no face was found; `opening` is the mouth's in this
    picture; `opens_shot` says that nothing may be carried over from the frame before.
    """

    image: UInt8Array
    time_s: Fraction
    duration_s: Fraction
    transform: FloatArray | None = None
    reference: Reference | None = None
    opening: float = 0.0
    opens_shot: bool = False

    @property
    def middle_s(self) -> Fraction:
        """The moment that the frame stands for."""
        return self.time_s + self.duration_s / 2


def photo_frames(
    image: UInt8Array, name: str, detector: FaceDetector, spec: AVSpec
) -> Generator[SourceFrame]:
    """The same photo for ever, on the spec's own time grid.

    Raises:
        FaceNotFoundError: the photo shows no face.
    """
    faces = detector.detect(image)
    if not faces:
        raise FaceNotFoundError(
            f"{name}: no face was found in this photo; expected one that looks towards the camera, "
            "at least some 60 pixels wide: use another photo, or crop it closer to the face"
        )
    transform = estimate_transform(faces[0].points, faces[0].topology, spec)
    reference = Reference(image, transform)
    return (
        SourceFrame(image, index / spec.fps, 1 / spec.fps, transform, reference)
        for index in count()
    )


def video_frames(
    path: Path, fps: Fraction, detector: FaceDetector, spec: AVSpec
) -> Generator[SourceFrame]:
    """A video's frames for ever, with smoothed transforms and a reference for each shot."""
    with (
        closing(ping_pong(path, fps)) as frames,
        closing(track_frames(frames, FaceTracker(detector), spec, fps)) as tracked,
    ):
        yield from with_references(tracked, fps)


def ping_pong(path: Path, fps: Fraction) -> Generator[SourceFrame]:
    """A video's frames forwards, then backwards, and so on, neither end twice; times run on."""
    time_s = Fraction(0)
    while True:
        num_frames, largest = 0, 1
        for frame in _timed(path, fps):
            if num_frames or not time_s:
                yield replace(frame, time_s=time_s)
                time_s += frame.duration_s
            largest = max(largest, frame.image.nbytes)
            num_frames += 1
        if num_frames == 0:
            raise MediaError(
                f"{path}: no picture could be decoded; expected at least one: use another video"
            )
        if num_frames == 1:
            yield from (replace(frame, time_s=i * frame.duration_s) for i in count(1))
        for frame in _backwards(path, fps, num_frames - 1, max(1, _BLOCK_BYTES // largest)):
            yield replace(frame, time_s=time_s)
            time_s += frame.duration_s


def _backwards(path: Path, fps: Fraction, stop: int, block: int) -> Iterator[SourceFrame]:
    """Frames stop - 1 down to 0. Decoders only run forwards: memory holds a block at a time."""
    while stop > 0:
        start = max(0, stop - block)
        with closing(_timed(path, fps)) as frames:
            yield from reversed(list(islice(frames, start, stop)))
        stop = start


def _timed(path: Path, fps: Fraction) -> Generator[SourceFrame]:
    """Frames with their times, freed from the container's rounding where the rate is constant."""
    previous: SourceFrame | None = None
    for frame in read_video(path):
        time_s = _on_grid(frame.time_s, fps)
        if previous is not None:
            yield replace(previous, duration_s=time_s - previous.time_s)
        previous = SourceFrame(frame.image, time_s, 1 / fps)
    if previous is not None:
        yield previous


def _on_grid(time_s: Fraction, fps: Fraction) -> Fraction:
    nearest = round_half_up(time_s * fps) / fps
    return nearest if abs(nearest - time_s) <= min(_ROUNDING_S, 1 / (10 * fps)) else time_s


def track_frames(
    frames: Iterable[SourceFrame], tracker: FaceTracker, spec: AVSpec, fps: Fraction
) -> Generator[SourceFrame]:
    """Adds each frame's transform, smoothed with a fixed lag; frames without a face keep None."""
    smoother = TransformSmoother(fps, spec)
    waiting: deque[SourceFrame] = deque()

    def ready(transforms: list[FloatArray]) -> Iterator[SourceFrame]:
        for transform in transforms:
            frame = waiting.popleft()
            yield frame if frame.transform is None else replace(frame, transform=transform)

    for frame in frames:
        face = tracker.update(frame.image)
        if tracker.cut:
            yield from ready(smoother.flush())
        transform = estimate_transform(face.points, face.topology, spec) if face else None
        opening = mouth_opening(face.points, face.topology) if face else 0.0
        waiting.append(replace(frame, transform=transform, opening=opening, opens_shot=tracker.cut))
        yield from ready(smoother.push(transform))
    yield from ready(smoother.flush())


def with_references(frames: Iterable[SourceFrame], fps: Fraction) -> Iterator[SourceFrame]:
    """Adds a reference: of a shot's first second, the face whose mouth is the most closed.

    A face that was away for a second may be another person's when it comes back: then the choice is
    made again.
    """
    window = max(1, round(_REFERENCE_WINDOW_S * fps))
    reference: Reference | None = None
    candidates: list[SourceFrame] = []
    missing = 0
    for frame in frames:
        missing = missing + 1 if frame.transform is None else 0
        if frame.opens_shot or missing > window:
            yield from _referred(candidates)
            candidates, reference = [], None
        if reference is None and (candidates or frame.transform is not None):
            candidates.append(frame)
            if len(candidates) >= min(window, max(1, _REFERENCE_BYTES // frame.image.nbytes)):
                referred = _referred(candidates)
                reference = referred[0].reference
                yield from referred
                candidates = []
        else:
            yield frame if frame.transform is None else replace(frame, reference=reference)
    yield from _referred(candidates)


def _referred(candidates: list[SourceFrame]) -> list[SourceFrame]:
    faced = [frame for frame in candidates if frame.transform is not None]
    if not faced:
        return candidates
    best = min(faced, key=lambda frame: frame.opening)
    assert best.transform is not None
    reference = Reference(best.image, best.transform)
    return [
        frame if frame.transform is None else replace(frame, reference=reference)
        for frame in candidates
    ]
