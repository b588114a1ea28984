"""A photo that lives: its heads sway a little and its eyes blink, the same for the same seed.

The photo itself is warped, in smooth fields that end before its edge, so there is no seam. Every
moment is a function of the time alone: a stream gives what a file gives.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.features.faces.alignment import invert
from talkinghead.types import Face, FloatArray, UInt8Array

Floats = npt.NDArray[np.float64]

# Upper lid, lower lid (each from the picture's left to its right) and the brow above: of the eye on
# the picture's left, and of the other.
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
# Sway: in widths of the face, and in radians about the neck; with noise of these frequencies.
_SWAY_X, _SWAY_Y, _SWAY_ANGLE = 0.02, 0.012, 0.012
_SWAY_HZ = (0.1, 0.3)
_WAVES = 3
# Within so many half widths and heights of the face the head moves as one; beyond the second, or
# the picture's edge, nothing moves.
_RIGID, _STILL = 1.25, 2.4
# The motion is less than this share of the way on which it fades, and so folds nothing.
_STEEPEST = 0.15
_BLINK_EVERY_S = (2.0, 6.0)
_CLOSING_S, _CLOSED_S, _OPENING_S = 0.1, 0.04, 0.2
# An eye that is narrower than this (height over width) is closed already.
_NARROWEST = 0.12
# How far past the lower lid the upper one comes, in heights of the open eye.
_PAST = 0.2


class IdleMotion:
    """The pictures of a photo whose people breathe, as it were.

    Args:
        image: uint8 [H, W, 3] RGB.
        faces: the people in it.
        seed: of the sway and of the moments of the blinks.
    """

    def __init__(self, image: UInt8Array, faces: list[Face], seed: int = 0) -> None:
        self._image = image
        self._heads = [
            _Head(image, face, [other for other in faces if other is not face], seed + number)
            for number, face in enumerate(faces)
        ]

    def at(self, time_s: float) -> tuple[UInt8Array, list[FloatArray]]:
        """The picture at a moment.

        Returns:
            uint8 [H, W, 3], and of each face where it has moved: float32 [2, 3], from pixels of the
            photo to pixels of this picture.
        """
        picture = self._image.copy()
        return picture, [head.move(picture, time_s) for head in self._heads]


class _Head:
    """One head's field of motion, its eyes and its noise."""

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
        centre = np.array([face.box.x0 + face.box.x1, face.box.y0 + face.box.y1]) / 2
        self._neck = centre + np.array([0, 0.8 * size[1]])
        still = min(_STILL, _room(image, centre, size, others))
        rigid = min(_RIGID, 0.5 + 0.5 * still)
        reach = np.array([_SWAY_X * size[0], _SWAY_Y * size[0], _SWAY_ANGLE])
        furthest = reach[0] + reach[1] + reach[2] * 2 * size[1]
        fade = max(0.0, (still - rigid) * size.min() / 2)
        self._reach = reach * min(1.0, _STEEPEST * fade / furthest) if still > 1 else 0 * reach
        self._rows, self._columns, self._share, self._places = _field(
            image, centre, size, rigid, still
        )

    def move(self, picture: UInt8Array, time_s: float) -> FloatArray:
        """Moves the head in a picture, in place, and gives the map of its pixels."""
        closure = self._closure(time_s)
        if closure > 0:
            for eye in self._eyes:
                eye.close(picture, closure)
        waves = np.sin(2 * np.pi * self._hz * time_s + self._phase)
        x, y, angle = self._reach * waves.sum(axis=1) / np.sqrt(_WAVES)
        cos, sin = np.cos(angle), np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]])
        shift = self._neck - linear @ self._neck + [x, y]
        moved = np.hstack([linear, shift[:, None]]).astype(np.float32)
        back = invert(moved)
        origin = self._places @ back[:, :2].T + back[:, 2]
        places = self._places + self._share[..., None] * (origin - self._places)
        picture[self._rows, self._columns] = cv2.remap(
            picture,
            places,
            None,
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,  # type: ignore[call-overload]
        )
        return moved

    def _closure(self, time_s: float) -> float:
        """How far the eyes are closed at a moment, in [0, 1]."""
        while self._blinks_s[-1] < time_s:
            self._blinks_s.append(self._blinks_s[-1] + float(self._rng.uniform(*_BLINK_EVERY_S)))
        # Before the first blink this is the last of those that are to come: a time below 0.
        since_s = time_s - self._blinks_s[bisect_right(self._blinks_s, time_s) - 1]
        opening_s = since_s - _CLOSING_S - _CLOSED_S
        if since_s < 0 or opening_s > _OPENING_S:
            return 0.0
        return float(min(_smooth(since_s / _CLOSING_S), 1 - _smooth(opening_s / _OPENING_S)))


@dataclass(frozen=True)
class _Eye:
    """An eye's pixels, and for each how far the lid above it may come down.

    `places` float32 [h, w, 2] are its (x, y) in the picture; `down` float32 [2] the direction in
    which lids close; the rest, float32 [h, w], are pixels in this direction: `depth` of each pixel
    below the upper lid's edge, `travel` of that edge until it meets the lower lid, `skin` above it
    that is drawn along.
    """

    rows: slice
    columns: slice
    places: FloatArray
    down: FloatArray
    depth: FloatArray
    travel: FloatArray
    skin: float

    def close(self, picture: UInt8Array, closure: float) -> None:
        """Draws the upper lid down by this share of its way, in place."""
        travel = np.float32(closure) * self.travel
        # From 0 where the skin rests, to 1 at the lid's edge, which is carried along unstretched.
        along = _smooth((self.depth + self.skin) / (travel + self.skin))
        places = self.places - (travel * along)[..., None] * self.down
        lid = cv2.remap(picture, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        behind = picture[self.rows, self.columns]
        covered = ((travel - self.depth) + np.float32(0.5)).clip(0, 1)[..., None]
        mixed = behind + covered * (lid.astype(np.float32) - behind)
        picture[self.rows, self.columns] = np.rint(mixed).clip(0, 255).astype(np.uint8)


def _make_eye(
    image: UInt8Array, points: FloatArray, upper: tuple[int, ...], lower: tuple[int, ...], brow: int
) -> _Eye | None:
    """The eye that these landmarks outline; None where it is closed, or not in the picture."""
    left, right = points[upper[0]].astype(float), points[upper[-1]].astype(float)
    width = float(np.linalg.norm(right - left))
    across = (right - left) / max(width, 1e-6)
    down = np.array([-across[1], across[0]])

    def line(indexes: tuple[int, ...]) -> Floats:
        """Landmarks as (along the eye, below its corners), the first ever further along."""
        xy = np.stack(
            [(points[list(indexes)] - left) @ across, (points[list(indexes)] - left) @ down]
        )
        xy[0] = np.maximum.accumulate(xy[0]) + 1e-3 * np.arange(len(indexes))
        return xy

    above, below = line(upper), line(lower)
    height = float(below[1].max() - above[1].min())
    skin = 0.7 * float(above[1].min() - (points[brow] - left) @ down)
    if height < _NARROWEST * width or width < 6 or skin < 2:
        return None
    corners = np.stack([left, right]) + np.array([[-skin], [height]])[..., None] * down
    low = np.maximum(np.floor(corners.min((0, 1))).astype(int), 0)
    high = np.minimum(np.ceil(corners.max((0, 1))).astype(int) + 1, image.shape[1::-1])
    if (high <= low).any():
        return None
    places = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True))), -1)
    along, deep = (places - left) @ across, (places - left) @ down
    inside = (along > above[0, 0]) & (along < above[0, -1])
    # Here and not above: it takes half a second to import, and few photos' eyes blink.
    from scipy.interpolate import PchipInterpolator

    lid, floor = (PchipInterpolator(*xy, extrapolate=True)(along) for xy in (above, below))
    # A little past the lower lid, but at the corners: what is left of the white would be seen.
    along_eye = (along / width).clip(0, 1)
    past = _PAST * height * np.sqrt(4 * along_eye * (1 - along_eye))
    travel = np.where(inside, (floor - lid).clip(0) + past, 0)
    return _Eye(
        slice(low[1], high[1]),
        slice(low[0], high[0]),
        places.astype(np.float32),
        down.astype(np.float32),
        np.where(inside, deep - lid, np.inf).astype(np.float32),
        travel.astype(np.float32),
        skin,
    )


def _room(image: UInt8Array, centre: Floats, size: Floats, others: list[Face]) -> float:
    """Half sizes of a face from its centre to the picture's edge, or half way to another's."""
    limit = np.array(image.shape[1::-1]) - 1
    room = float((2 * np.minimum(centre, limit - centre) / size).min())
    for other in others:
        middle = np.array([other.box.x0 + other.box.x1, other.box.y0 + other.box.y1]) / 2
        room = min(room, float(np.linalg.norm((middle - centre) / size)))
    return room


def _field(
    image: UInt8Array, centre: Floats, size: Floats, rigid: float, still: float
) -> tuple[slice, slice, FloatArray, FloatArray]:
    """What a head's motion reaches: rows, columns, shares [h, w] and places (x, y) [h, w, 2]."""
    limit = np.array(image.shape[1::-1])
    low = np.floor(centre - still * size / 2).astype(int).clip(0, limit - 1)
    high = np.ceil(centre + still * size / 2).astype(int).clip(0, limit - 1) + 1
    places = np.stack(
        np.meshgrid(*(np.arange(a, b, dtype=np.float32) for a, b in zip(low, high, strict=True))),
        -1,
    )
    away = np.linalg.norm((places - centre) * 2 / size, axis=-1)
    share = _smooth((still - away) / max(still - rigid, 1e-6)).astype(np.float32)
    return slice(low[1], high[1]), slice(low[0], high[0]), share, places


def _smooth(x: npt.ArrayLike) -> Floats:
    """From 0 at 0 to 1 at 1, level at both ends."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))
