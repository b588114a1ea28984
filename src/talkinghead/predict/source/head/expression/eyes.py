"""Lids and gaze of the eyes in a photo, as blendshapes and blinks move them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkinghead.predict.source.head.expression.blendshapes import (
    BLENDSHAPES,
    load_basis,
    to_weights,
)
from talkinghead.predict.source.head.expression.irises import Iris, find_iris
from talkinghead.predict.source.head.eyelids import MAX_WIDENING, Lid, find_lids
from talkinghead.types import Face, FloatArray, UInt8Array

GAZE_DEG = 25.0
"""Angle of the gaze at a weight of 1 of `eyeLookInLeft` and the like."""
# Maximum fraction of the open eye that the lower lid covers.
_MAX_LOWER = 0.45
# Smaller motion is not drawn.
_MIN_CLOSURE, _MIN_GAZE_DEG = 0.01, 0.15
_SIDES = ("Right", "Left")


@dataclass(frozen=True)
class _Eye:
    """One eye, and the effect of each blendshape on it.

    Attributes:
        upper, lower: the lids.
        iris: the iris, None if it is not visible.
        travel: motion of the lids towards each other, [2, 52] (see `Basis.lid_travel`).
        gaze_deg: motion of the gaze to the right of the image and down, [2, 52].
    """

    upper: Lid
    lower: Lid | None
    iris: Iris | None
    travel: FloatArray
    gaze_deg: FloatArray

    def draw(self, image: UInt8Array, weights: FloatArray, blink: float) -> None:
        right_deg, down_deg = (self.gaze_deg @ weights).tolist()
        if self.iris is not None and max(abs(right_deg), abs(down_deg)) > _MIN_GAZE_DEG:
            self.iris.look(image, right_deg, down_deg)
        move_lids(image, (self.upper, self.lower), self.travel @ weights, blink)


class Eyes:
    """The eyes of one face in a photo.

    Args:
        image: the photo, uint8 [H, W, 3] RGB.
        face: the face.
        scale: pixels per centimetre of the face; None leaves the gaze as it is.
    """

    def __init__(self, image: UInt8Array, face: Face, scale: float | None) -> None:
        self._eyes = []
        for side, lids in zip(_SIDES, find_lids(image, face), strict=True):
            if lids is None:
                continue
            iris = None
            if scale is not None and face.topology == "mesh468":
                iris = find_iris(image, face.points, side, scale)
            travel = load_basis().lid_travel(side)
            self._eyes.append(_Eye(*lids, iris, travel, _gaze_deg(side)))

    def draw(self, image: UInt8Array, weights: FloatArray, blink: float) -> None:
        """Move the lids and the gaze in an image in place.

        Args:
            image: the photo with any mouth.
            weights: weights of the blendshapes.
            blink: closure of the eyes in addition, 0 to 1.
        """
        for eye in self._eyes:
            eye.draw(image, weights, blink)

    def moves(self, weights: FloatArray, blink: float) -> bool:
        """Return whether `draw` changes an image."""
        if not self._eyes:
            return False
        return blink > 0 or any(
            np.abs(eye.travel @ weights).max() > _MIN_CLOSURE
            or np.abs(eye.gaze_deg @ weights).max() > _MIN_GAZE_DEG
            for eye in self._eyes
        )


def move_lids(
    image: UInt8Array, lids: tuple[Lid, Lid | None], travel: FloatArray, blink: float = 0.0
) -> None:
    """Move the upper and the lower lid of an eye in place.

    Args:
        image: uint8 [H, W, 3] RGB.
        lids: the lids in the image.
        travel: motion of the upper and the lower lid towards each other, [2]; 1 is the travel of
            the upper lid that closes the eye.
        blink: closure of the upper lid in addition, 0 to 1.
    """
    upper = float(np.clip(travel[0], -MAX_WIDENING, 1))
    upper += blink * (1 - upper)
    lower = float(np.clip(travel[1], -MAX_WIDENING, _MAX_LOWER)) * (1 - max(upper, 0.0))
    if lids[1] is not None and abs(lower) > _MIN_CLOSURE:
        lids[1].move(image, lower)
    if abs(upper) > _MIN_CLOSURE:
        lids[0].move(image, upper)


def look(right_deg: float, down_deg: float) -> FloatArray:
    """Return the weights of the blendshapes of a gaze to the right of the image and down."""
    vertical = "Down" if down_deg > 0 else "Up"
    values = {}
    for side, outward_deg in (("Left", right_deg), ("Right", -right_deg)):
        horizontal = "Out" if outward_deg > 0 else "In"
        values[f"eyeLook{horizontal}{side}"] = min(abs(outward_deg) / GAZE_DEG, 1.0)
        values[f"eyeLook{vertical}{side}"] = min(abs(down_deg) / GAZE_DEG, 1.0)
    return to_weights(values)


def _gaze_deg(side: str) -> FloatArray:
    gaze = np.zeros((2, len(BLENDSHAPES)), np.float32)
    # The person's left is the right of the image.
    outward = 1 if side == "Left" else -1
    for name, row, sign in (
        ("Out", 0, outward),
        ("In", 0, -outward),
        ("Down", 1, 1),
        ("Up", 1, -1),
    ):
        gaze[row, BLENDSHAPES.index(f"eyeLook{name}{side}")] = sign * GAZE_DEG
    return gaze
