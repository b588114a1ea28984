"""Keeping the generated mouth behind what passes before it: a microphone, a cup, a sleeve.

Everything happens on a small grid that is fixed in the face.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from talkinghead.predict.compositing.mouth_region import (
    OUTLINE_CENTRE,
    OUTLINE_RADII,
    MouthRegion,
    Texture,
)
from talkinghead.types import FloatArray, UInt8Array

_GRID = 32
_FINE = 4
# How far things may move in the face, a nod and a dropping jaw, in cells either way.
_REACH = 3
# Where lips, teeth, tongue and the dark between them change colour by themselves, in box units.
_LIPS_CENTRE, _LIPS_RADII = np.array([0.5, 0.47]), np.array([0.27, 0.22])
# Added to every channel, so that the colour of what is nearly black is not all noise.
_DARK = 16
_LUMINANCE: FloatArray = np.array([0.30, 0.59, 0.11], dtype=np.float32)
# Shadows and lamps change brightness by up to so much, as a logarithm, and hardly the colour.
_SHADE = 0.5
_MIN_SEEDS = 5
_RELEASE_S = 0.15
_ADAPT_S = 2.0


class OcclusionGuard:
    """Finds what covers the mouth's region and is not of the face, by its colour.

    A cell of the grid is strange when its colour is none that the reference shows within reach of
    that place. Colour means the ratios of red, green and blue: a shadow leaves them as they are, a
    beard is in the reference too. Around the lips, where speech changes colours, nothing is strange
    by itself; but what looks like something strange beside it goes with that. Two thresholds, in
    space and in time, keep the border quiet: what is strange enough spreads to what is a little
    strange, and stays until it is not even that. A covering takes effect at once and fades away
    afterwards.

    A bare hand is found only where its colour differs from the face's.

    Args:
        low, high: the thresholds, in natural logarithms of the ratios of colours.

    Paper: Canny, "A Computational Approach to Edge Detection", PAMI 1986 (for the two thresholds).
    """

    def __init__(self, low: float = 0.12, high: float = 0.22) -> None:
        self.low = low
        self.high = high
        steps = (np.arange(_GRID) + 0.5) / _GRID
        places = np.stack(np.meshgrid(steps, steps), -1)
        self._inside = np.linalg.norm((places - OUTLINE_CENTRE) / OUTLINE_RADII, axis=-1) < 1
        self._lips = np.linalg.norm((places - _LIPS_CENTRE) / _LIPS_RADII, axis=-1) < 1
        self._telling = self._inside & ~self._lips
        self._texture: Texture | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets earlier frames."""
        self._covered = np.zeros((_GRID, _GRID), dtype=np.float32)
        self._shift = np.zeros(3, dtype=np.float32)
        self._time_s: float | None = None

    def __call__(
        self, picture: UInt8Array, region: MouthRegion, reference: Texture, time_s: float
    ) -> FloatArray | None:
        """What nothing covers.

        Args:
            picture: uint8 [H, W, 3] RGB.
            region: the mouth's, in the picture.
            reference: the face as it is when nothing covers it.
            time_s: the frame's time.

        Returns:
            float32 [h, w] in [0, 1] over the region; None where all is visible, as in a photo.
        """
        if picture is reference.picture:
            return None
        elapsed_s = 0.0 if self._time_s is None else max(time_s - self._time_s, 0.0)
        self._time_s = time_s
        if reference is not self._texture:
            self._learn(reference)
        colours = self._colours(picture, region, elapsed_s)
        covering = self._follow(colours)
        self._covered *= np.float32(math.exp(-elapsed_s / _RELEASE_S))
        self._covered[self._covered < 0.05] = 0
        np.maximum(self._covered, covering, out=self._covered)
        if not self._covered.any():
            return None
        return 1 - region.spread(self._covered, cv2.INTER_LINEAR)

    def _learn(self, reference: Texture) -> None:
        """The range of colours within reach of each cell; lips and teeth count as such alone."""
        self._texture = reference
        self._face = _colours(reference.picture, reference.box_to_picture)
        reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _REACH + 1, 2 * _REACH + 1))
        lips, none = self._lips[..., None], np.float32(np.inf)
        least, most = (
            (cv2.erode(np.where(lips, none, face), reach), cv2.erode(face, reach))
            for face in (self._face, -self._face)
        )
        self._least, self._most = np.where(lips, *least[::-1]), -np.where(lips, *most[::-1])

    def _colours(self, picture: UInt8Array, region: MouthRegion, elapsed_s: float) -> FloatArray:
        """Of each cell, in the light of the reference: float32 [grid, grid, 3]."""
        colours = _colours(picture, region.box_to_picture)
        free = self._telling & (self._covered == 0)
        if free.any():
            # The light may change, slowly.
            shift = np.median((colours - self._face)[free], axis=0)
            self._shift += np.float32(min(elapsed_s / _ADAPT_S, 1.0)) * (shift - self._shift)
        return colours - self._shift

    def _follow(self, colours: FloatArray) -> FloatArray:
        """From cells that are certainly covered to those that go with them: 0 or 1 [grid, grid]."""
        excess = np.maximum(np.maximum(self._least - colours, colours - self._most), 0)
        excess[..., 2] = np.maximum(excess[..., 2] - _SHADE, 0)
        strange = np.linalg.norm(excess, axis=-1)
        likely = self._inside & (strange > self.low)
        seeds = likely & self._telling & ((strange > self.high) | (self._covered > 0.5))
        if seeds.sum() < _MIN_SEEDS:
            return np.zeros_like(self._covered)
        # Things have light and dark sides, of one colour.
        difference = (colours - np.median(colours[seeds], axis=0)) / np.array([1, 1, 3], np.float32)
        likely |= self._inside & self._lips & (np.linalg.norm(difference, axis=-1) < self.high)
        count, labels = cv2.connectedComponents(likely.astype(np.uint8))
        enough = np.bincount(labels[seeds], minlength=count) >= _MIN_SEEDS
        covering = enough[labels].astype(np.float32)
        closed = cv2.morphologyEx(covering, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        return np.asarray(cv2.dilate(closed, np.ones((3, 3), np.uint8)), dtype=np.float32)


def _colours(picture: UInt8Array, box_to_picture: FloatArray) -> FloatArray:
    """log(red / green), log(blue / green) and log luminance of each cell: [grid, grid, 3]."""
    fine = _FINE * _GRID
    to_picture = box_to_picture.astype(np.float64) / [fine, fine, 1]
    to_picture[:, 2] += to_picture[:, :2] @ [0.5, 0.5]
    box = cv2.warpAffine(
        picture,
        to_picture,
        (fine, fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    cells = cv2.resize(box, (_GRID, _GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
    logs = np.log(cells + _DARK)
    ratios = logs[..., [0, 2]] - logs[..., 1:2]
    return np.concatenate([ratios, np.log(cells @ _LUMINANCE + _DARK)[..., None]], -1)
