"""Which picture of a video's face the model knows: its reference.

Nothing is kept for longer than the choice needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from talkinghead.features.denoise import average_onto, nearest_lips
from talkinghead.features.faces.tracker import FORGET_FRAMES
from talkinghead.features.geometry import chain_transforms, invert, transform_points
from talkinghead.predict.source.frame import Reference, SourceFrame
from talkinghead.types import AVSpec, FloatArray, UInt8Array

_REFERENCE_BYTES = 128 * 2**20
_REFERENCE_WINDOW_S = 1


def with_references(
    frames: Iterable[SourceFrame], spec: AVSpec, fps: Fraction
) -> Iterator[SourceFrame]:
    """Adds a reference: of a shot's first second, the face whose mouth is the most closed.

    Its noise is averaged out with the second's other pictures of the same lips.

    A face that the tracker had forgotten may be another person's: then the choice is made again.
    """
    window = max(1, round(_REFERENCE_WINDOW_S * fps))
    reference: Reference | None = None
    candidates: list[SourceFrame] = []
    missing = 0
    for frame in frames:
        missing = missing + 1 if frame.transform is None else 0
        if frame.opens_shot or missing > FORGET_FRAMES:
            yield from _referred(candidates, spec)
            candidates, reference = [], None
        if reference is None and (candidates or frame.transform is not None):
            candidates.append(frame)
            if len(candidates) >= min(window, max(1, _REFERENCE_BYTES // frame.image.nbytes)):
                referred = _referred(candidates, spec)
                reference = referred[0].reference
                yield from referred
                candidates = []
        else:
            yield frame if frame.transform is None else replace(frame, reference=reference)
    yield from _referred(candidates, spec)


def _referred(candidates: list[SourceFrame], spec: AVSpec) -> list[SourceFrame]:
    faced = [frame for frame in candidates if frame.transform is not None]
    if not faced:
        return candidates
    best = min(faced, key=lambda frame: (-frame.strength, frame.opening))
    assert best.transform is not None
    assert best.lips is not None
    picture = _averaged(best, [frame for frame in faced if frame.strength == best.strength], spec)
    reference = Reference(picture, best.transform, best.lips, best.pose)
    return [
        frame if frame.transform is None else replace(frame, reference=reference)
        for frame in candidates
    ]


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
