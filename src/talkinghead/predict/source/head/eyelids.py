"""Blinks: closing of the eyes of a photo, and natural times of blinks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.source.head.head_geometry import Floats, smooth_step
from talkinghead.types import Face, FloatArray, UInt8Array

# Landmarks of the left and the right eye in the image: the upper lid and the lower lid, each from
# left to right, and a point of the eyebrow.
_EYES = {
    "mesh468": (
        (
            (33, 246, 161, 160, 159, 158, 157, 173, 133),
            (33, 7, 163, 144, 145, 153, 154, 155, 133),
            52,
        ),
        (
            (362, 398, 384, 385, 386, 387, 388, 466, 263),
            (362, 382, 381, 380, 374, 373, 390, 249, 263),
            282,
        ),
    ),
    "ibug68": (
        ((36, 37, 38, 39), (36, 41, 40, 39), 19),
        ((42, 43, 44, 45), (42, 47, 46, 45), 24),
    ),
}
# One blink begins in each slot of this duration, at a random time within the given part of it.
_SLOT_S, _PART = 4.0, (0.15, 0.85)
_CLOSING_S, _CLOSED_S, _OPENING_S = 0.1, 0.04, 0.2
# Eyes with a smaller ratio of height to width are treated as closed.
_MIN_ASPECT = 0.12
# Distance by which the upper lid moves below the lower lid, in heights of the open eye.
_OVERSHOOT = 0.2


def blink_closure(time_s: float, seed: int) -> float:
    """Return the closure of the eyes at a given time, from 0 (open) to 1 (closed)."""
    # A blink may continue in the next slot.
    closures = [closure_since(time_s - start_s) for start_s in _blink_starts_s(time_s, seed)]
    return max(closures)


def _blink_starts_s(time_s: float, seed: int) -> list[float]:
    slot = int(time_s // _SLOT_S)
    parts = [np.random.default_rng((seed, s)).uniform(*_PART) for s in (slot - 1, slot) if s >= 0]
    return [(slot - len(parts) + 1 + index + part) * _SLOT_S for index, part in enumerate(parts)]


def closure_since(since_s: float) -> float:
    """Return the closure of the eyes, 0 to 1, at a time after the start of a blink."""
    opening_s = since_s - _CLOSING_S - _CLOSED_S
    if since_s < 0 or opening_s > _OPENING_S:
        return 0.0
    closing = smooth_step(since_s / _CLOSING_S)
    return float(min(closing, 1 - smooth_step(opening_s / _OPENING_S)))


def find_eyes(image: UInt8Array, face: Face) -> list[Eye]:
    """Return the open eyes of a face that can be closed."""
    return [
        eye
        for upper, lower, brow in _EYES[face.topology]
        if (eye := _make_eye(image, face.points, upper, lower, brow)) is not None
    ]


@dataclass(frozen=True)
class Eye:
    """Geometry for closing one eye.

    Attributes:
        rows, columns: slices of the image.
        xy: (x, y) of each pixel in the image, float32 [h, w, 2].
        down: unit vector in which the upper lid closes, float32 [2].
        depth: distance of each pixel below the edge of the upper lid, float32 [h, w].
        travel: distance of the upper lid's edge to its closed position, float32 [h, w].
        skin: height of the skin above the lid that is stretched, in pixels.
    """

    rows: slice
    columns: slice
    xy: FloatArray
    down: FloatArray
    depth: FloatArray
    travel: FloatArray
    skin: float

    def close(self, image: UInt8Array, closure: float) -> None:
        """Close the eye in an image in place; `closure` is between 0 (open) and 1 (closed)."""
        travel = np.float32(closure) * self.travel
        # `stretch` is 0 at the upper end of the skin and 1 at the edge of the lid.
        stretch = smooth_step((self.depth + self.skin) / (travel + self.skin))
        source_xy = self.xy - (travel * stretch)[..., None] * self.down
        lid = _sample(image, source_xy)
        original = image[self.rows, self.columns]
        covered = ((travel - self.depth) + np.float32(0.5)).clip(0, 1)[..., None]
        mixed = original + covered * (lid.astype(np.float32) - original)
        image[self.rows, self.columns] = np.rint(mixed).clip(0, 255).astype(np.uint8)


def _make_eye(
    image: UInt8Array, points: FloatArray, upper: tuple[int, ...], lower: tuple[int, ...], brow: int
) -> Eye | None:
    """Return the eye at the given landmarks, or None if it is closed or outside the image."""
    left, right = points[upper[0]].astype(float), points[upper[-1]].astype(float)
    width = float(np.linalg.norm(right - left))
    across = (right - left) / max(width, 1e-6)
    down = np.array([-across[1], across[0]])

    def line(indexes: tuple[int, ...]) -> Floats:
        """Return landmarks as (x along the eye, y below the corners), with increasing x."""
        xy = np.stack([(points[list(indexes)] - left) @ axis for axis in (across, down)])
        xy[0] = np.maximum.accumulate(xy[0]) + 1e-3 * np.arange(len(indexes))
        return xy

    above, below = line(upper), line(lower)
    height = float(below[1].max() - above[1].min())
    skin = 0.7 * float(above[1].min() - (points[brow] - left) @ down)
    if height < _MIN_ASPECT * width or width < 6 or skin < 2:
        return None
    corners = np.stack([left, right]) + np.array([[-skin], [height]])[..., None] * down
    low = np.maximum(np.floor(corners.min((0, 1))).astype(int), 0)
    high = np.minimum(np.ceil(corners.max((0, 1))).astype(int) + 1, image.shape[1::-1])
    if (high <= low).any():
        return None
    xy = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True))), -1)
    along, deep = (xy - left) @ across, (xy - left) @ down
    inside = (along > above[0, 0]) & (along < above[0, -1])
    # Import scipy on demand, because the import takes half a second.
    from scipy.interpolate import PchipInterpolator

    upper_y, lower_y = (PchipInterpolator(*p, extrapolate=True)(along) for p in (above, below))
    # Move the upper lid below the lower lid, except at the corners, to cover the whole eye.
    position = (along / width).clip(0, 1)
    overshoot = _OVERSHOOT * height * np.sqrt(4 * position * (1 - position))
    travel = np.where(inside, (lower_y - upper_y).clip(0) + overshoot, 0)
    return Eye(
        slice(low[1], high[1]),
        slice(low[0], high[0]),
        xy.astype(np.float32),
        down.astype(np.float32),
        np.where(inside, deep - upper_y, np.inf).astype(np.float32),
        travel.astype(np.float32),
        skin,
    )


def _sample(image: UInt8Array, xy: npt.NDArray[np.floating]) -> UInt8Array:
    """Sample an image at pixel coordinates [h, w, 2]."""
    return cv2.remap(image, xy, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
