"""ARKit's 52 blendshapes on FaceMesh's points.

Weights are float32 [52], in the order of `BLENDSHAPES`. Left and right are those of the person: the
left eye is on the right of the image.

Shape suffixes: K blendshapes, P points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from talkinghead.errors import UsageError
from talkinghead.types import FloatArray

PACKAGED = Path(str(resources.files("talkinghead") / "assets" / "blendshapes.safetensors"))
"""Path of the points and their displacements (see assets/README.md)."""

BLENDSHAPES = (
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight"),
    *("eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight"),
    *("eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
    *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft"),
    *("jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight"),
    *("mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft"),
    *("mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight", "tongueOut"),
)
"""Names of ARKit's blendshapes."""
_INDEXES = {name.lower(): index for index, name in enumerate(BLENDSHAPES)}

LIDS = {
    "Right": (
        (33, 246, 161, 160, 159, 158, 157, 173, 133),
        (33, 7, 163, 144, 145, 153, 154, 155, 133),
    ),
    "Left": (
        (362, 398, 384, 385, 386, 387, 388, 466, 263),
        (362, 382, 381, 380, 374, 373, 390, 249, 263),
    ),
}
"""Points of the upper and the lower lid of each eye, from left to right in the image."""
INNER_LIPS = (
    (191, 80, 81, 82, 13, 312, 311, 310, 415),
    (95, 88, 178, 87, 14, 317, 402, 318, 324),
)
"""Inner points of the upper and the lower lip, from left to right in the image."""

OUTER_LIPS = ((185, 40, 39, 37, 0, 267, 269, 270, 409), (146, 91, 181, 84, 17, 314, 405, 321, 375))
"""Outer points of the upper and the lower lip, from left to right in the image."""


@dataclass(frozen=True, eq=False)
class Basis:
    """Points of a neutral face and their displacements.

    Attributes:
        points: float32 [P, 3] in centimetres of the canonical face model (see `FaceFrame`).
        displacements: float32 [K, P, 3] at a weight of 1.
    """

    points: FloatArray
    displacements: FloatArray

    def moved(self, weights: FloatArray) -> FloatArray:
        """Return the points [P, 3] of the face with an expression."""
        return self.points + np.tensordot(weights, self.displacements, 1)

    def lid_travel(self, side: str) -> FloatArray:
        """Return how far each blendshape moves the lids of an eye towards each other, [2, K].

        The first row is the upper lid, the second the lower lid; 1 is the travel of the upper lid
        that closes the eye.
        """
        upper, lower = (self.displacements[:, lid[3:6], 1].mean(1) for lid in LIDS[side])
        closed = upper[blendshape_index(f"eyeBlink{side}")]
        return np.stack([upper, -lower]) / closed


@cache
def load_basis() -> Basis:
    """Return the packaged basis."""
    tensors = load_file(PACKAGED)
    names = ("points", "displacements")
    return Basis(*(tensors[name].astype(np.float32) for name in names))


def to_weights(values: Mapping[str, float]) -> FloatArray:
    """Return the weights of named blendshapes, in any case; others are 0.

    Raises:
        UsageError: A name is unknown, or a weight is not between 0 and 1.
    """
    weights = np.zeros(len(BLENDSHAPES), np.float32)
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UsageError(f"the blendshape {name} has the weight {value}; expected 0 to 1")
        weights[blendshape_index(name)] = value
    return weights


def blendshape_index(name: str) -> int:
    """Return the index of a blendshape.

    Raises:
        UsageError: The name is unknown.
    """
    if (index := _INDEXES.get(name.lower())) is not None:
        return index
    nearest = BLENDSHAPES[_INDEXES[get_close_matches(name.lower(), _INDEXES, 1, 0)[0]]]
    raise UsageError(f"{name} is not a blendshape of ARKit: did you mean {nearest}?")
