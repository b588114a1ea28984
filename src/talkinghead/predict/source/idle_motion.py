"""Idle motion of a photo: slight head sway and eye blinks, determined by a seed.

The photo is warped by smooth fields that end before its border, so there is no seam. Each frame
depends only on its time, so a stream and a file give the same frames.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.features.faces.alignment import invert
from talkinghead.features.faces.tracker import box_centre
from talkinghead.types import Face, FloatArray, UInt8Array

Floats = npt.NDArray[np.float64]

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
# Amplitudes of the sway: translation in face widths, and rotation about the neck in radians.
_SWAY_X, _SWAY_Y, _SWAY_ANGLE = 0.02, 0.012, 0.012
# Range of the sway frequencies.
_SWAY_HZ = (0.1, 0.3)
_WAVES = 3
# Distances from the face centre in half face sizes: pixels within the first distance move rigidly,
# and pixels beyond the second distance or the image border do not move.
_RIGID, _STILL = 1.25, 2.4
# Maximum gradient of the motion field; a larger gradient would fold the image.
_MAX_GRADIENT = 0.15
_BLINK_EVERY_S = (2.0, 6.0)
_CLOSING_S, _CLOSED_S, _OPENING_S = 0.1, 0.04, 0.2
# Eyes with a smaller ratio of height to width are treated as closed.
_MIN_ASPECT = 0.12
# Distance by which the upper lid moves below the lower lid, in heights of the open eye.
_OVERSHOOT = 0.2


class IdleMotion:
    """An animation of the heads and eyes in a photo.

    Args:
        image: uint8 [H, W, 3] RGB.
        faces: the faces to animate.
        seed: seed of the sway and of the times of the blinks.
    """

    def __init__(self, image: UInt8Array, faces: list[Face], seed: int = 0) -> None:
        self._image = image
        self._heads = [
            _Head(image, face, [other for other in faces if other is not face], seed + index)
            for index, face in enumerate(faces)
        ]

    def at(self, time_s: float) -> tuple[UInt8Array, list[FloatArray]]:
        """Return the frame and the face transforms at a given time.

        Returns:
            uint8 [H, W, 3], and for each face the transform from pixels of the photo to pixels of
            the frame, float32 [2, 3].
        """
        frame = self._image.copy()
        return frame, [head.move(frame, time_s) for head in self._heads]


class _Head:
    """Motion field, eyes and random motion parameters of one head."""

    def __init__(self, image: UInt8Array, face: Face, others: list[Face], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._eyes = [
            eye
            for upper, lower, brow in _EYES[face.topology]
            if (eye := _make_eye(image, face.points, upper, lower, brow)) is not None
        ]
        self._blinks_s = [float(self._rng.uniform(1.0, _BLINK_EVERY_S[1]))]
        self._hz = self._rng.uniform(*_SWAY_HZ, (3, _WAVES))
        self._phase = self._rng.uniform(0, 2 * np.pi, (3, _WAVES))
        size = np.array([face.box.width, face.box.height])
        centre = np.array(box_centre(face.box))
        self._neck = centre + np.array([0, 0.8 * size[1]])
        still = min(_STILL, _free_extent(image, centre, size, others))
        rigid = min(_RIGID, 0.5 + 0.5 * still)
        amplitude = np.array([_SWAY_X * size[0], _SWAY_Y * size[0], _SWAY_ANGLE])
        furthest = amplitude[0] + amplitude[1] + amplitude[2] * 2 * size[1]
        fade = max(0.0, (still - rigid) * size.min() / 2)
        self._amplitude = (
            amplitude * min(1.0, _MAX_GRADIENT * fade / furthest) if still > 1 else 0 * amplitude
        )
        self._rows, self._columns, self._weight, self._xy = _motion_field(
            image, centre, size, rigid, still
        )

    def move(self, image: UInt8Array, time_s: float) -> FloatArray:
        """Move the head in an image in place, and return the transform of the head's pixels."""
        closure = self._closure(time_s)
        if closure > 0:
            for eye in self._eyes:
                eye.close(image, closure)
        waves = np.sin(2 * np.pi * self._hz * time_s + self._phase)
        x, y, angle = self._amplitude * waves.sum(axis=1) / np.sqrt(_WAVES)
        cos, sin = np.cos(angle), np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]])
        shift = self._neck - linear @ self._neck + [x, y]
        moved = np.hstack([linear, shift[:, None]]).astype(np.float32)
        back = invert(moved)
        source_xy = self._xy @ back[:, :2].T + back[:, 2]
        source_xy = self._xy + self._weight[..., None] * (source_xy - self._xy)
        image[self._rows, self._columns] = _sample(image, source_xy)
        return moved

    def _closure(self, time_s: float) -> float:
        """Return the closure of the eyes at a given time, from 0 (open) to 1 (closed)."""
        while self._blinks_s[-1] < time_s:
            self._blinks_s.append(self._blinks_s[-1] + float(self._rng.uniform(*_BLINK_EVERY_S)))
        # Before the first blink, index -1 selects a blink in the future, so `since_s` is negative.
        since_s = time_s - self._blinks_s[bisect_right(self._blinks_s, time_s) - 1]
        opening_s = since_s - _CLOSING_S - _CLOSED_S
        if since_s < 0 or opening_s > _OPENING_S:
            return 0.0
        closing = _smooth_step(since_s / _CLOSING_S)
        return float(min(closing, 1 - _smooth_step(opening_s / _OPENING_S)))


@dataclass(frozen=True)
class _Eye:
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
        stretch = _smooth_step((self.depth + self.skin) / (travel + self.skin))
        source_xy = self.xy - (travel * stretch)[..., None] * self.down
        lid = _sample(image, source_xy)
        original = image[self.rows, self.columns]
        covered = ((travel - self.depth) + np.float32(0.5)).clip(0, 1)[..., None]
        mixed = original + covered * (lid.astype(np.float32) - original)
        image[self.rows, self.columns] = np.rint(mixed).clip(0, 255).astype(np.uint8)


def _make_eye(
    image: UInt8Array, points: FloatArray, upper: tuple[int, ...], lower: tuple[int, ...], brow: int
) -> _Eye | None:
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
    return _Eye(
        slice(low[1], high[1]),
        slice(low[0], high[0]),
        xy.astype(np.float32),
        down.astype(np.float32),
        np.where(inside, deep - upper_y, np.inf).astype(np.float32),
        travel.astype(np.float32),
        skin,
    )


def _free_extent(image: UInt8Array, centre: Floats, size: Floats, others: list[Face]) -> float:
    """Return the extent that is limited by the image border and other faces, in half face sizes."""
    limit = np.array(image.shape[1::-1]) - 1
    extent = float((2 * np.minimum(centre, limit - centre) / size).min())
    for other in others:
        apart = (np.array(box_centre(other.box)) - centre) / size
        extent = min(extent, float(np.linalg.norm(apart)))
    return extent


def _motion_field(
    image: UInt8Array, centre: Floats, size: Floats, rigid: float, still: float
) -> tuple[slice, slice, FloatArray, FloatArray]:
    """Return the image area in which a head moves, and the weight of the motion.

    Returns:
        Its rows and columns, the weight of the motion [h, w] and the pixel coordinates [h, w, 2].
    """
    limit = np.array(image.shape[1::-1])
    low = np.floor(centre - still * size / 2).astype(int).clip(0, limit - 1)
    high = np.ceil(centre + still * size / 2).astype(int).clip(0, limit - 1) + 1
    axes = (np.arange(a, b, dtype=np.float32) for a, b in zip(low, high, strict=True))
    xy = np.stack(np.meshgrid(*axes), -1)
    distance = np.linalg.norm((xy - centre) * 2 / size, axis=-1)
    weight = _smooth_step((still - distance) / max(still - rigid, 1e-6)).astype(np.float32)
    return slice(low[1], high[1]), slice(low[0], high[0]), weight, xy


def _sample(image: UInt8Array, xy: npt.NDArray[np.floating]) -> UInt8Array:
    """Sample an image at pixel coordinates [h, w, 2]."""
    return cv2.remap(image, xy, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def _smooth_step(x: npt.ArrayLike) -> Floats:
    """Return the cubic smoothstep function, which rises smoothly from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))
