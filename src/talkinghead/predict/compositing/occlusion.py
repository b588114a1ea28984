"""Detect objects in front of the mouth, such as a microphone, a cup or a sleeve.

All computations use a small grid that is fixed to the face.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from talkinghead.media.decoding.video_image import ImageLike
from talkinghead.predict.compositing.lighting import LightChange
from talkinghead.predict.compositing.mouth_region import (
    ELLIPSE_CENTRE,
    ELLIPSE_RADII,
    MouthRegion,
    Texture,
)
from talkinghead.predict.compositing.overlays import find_overlay, sample_box
from talkinghead.types import FloatArray, UInt8Array

_GRID = 32
# Maximum motion of facial features due to nods and the jaw, in cells in each direction.
_REACH = 3
# Ellipse around the lips in which speech changes the colours, in box units.
_LIPS_CENTRE, _LIPS_RADII = np.array([0.5, 0.47]), np.array([0.27, 0.22])
# Offset added to every channel, because noise dominates the colour ratios of nearly black pixels.
_OFFSET = 16
_LUMINANCE: FloatArray = np.array([0.30, 0.59, 0.11], dtype=np.float32)
# Tolerated change of the log luminance: shadows and lamps change the luminance, but hardly change
# the colour ratios.
_LUMINANCE_TOLERANCE = 0.5
# Hysteresis thresholds, in natural logarithms of colour ratios.
_LOW, _HIGH = 0.12, 0.22
_MIN_SEEDS = 5
# Minimum fraction of a cell that a caption covers.
_MIN_OVERLAY = 0.1
_RELEASE_S = 0.15
_ADAPT_S = 2.0


class OcclusionGuard:
    """A detector for occlusions of the mouth region, based on their colour.

    A grid cell is an outlier if its colour does not occur in the reference within `_REACH` cells.
    Colours are compared by the ratios of red, green and blue, which shadows do not change; a beard
    is part of the reference. Around the lips, where speech changes colours, a cell counts only if
    it resembles outliers outside the lips. Hysteresis with two thresholds, in space and in time,
    keeps the border stable. An occlusion takes effect at once and fades out after it ends.

    A bare hand is detected only where its colour differs from the face's.

    Paper: Canny, "A Computational Approach to Edge Detection", PAMI 1986 (for the two thresholds).
    """

    def __init__(self) -> None:
        steps = (np.arange(_GRID) + 0.5) / _GRID
        grid_xy = np.stack(np.meshgrid(steps, steps), -1)
        self._grid_xy = grid_xy.astype(np.float32)
        self._inside = np.linalg.norm((grid_xy - ELLIPSE_CENTRE) / ELLIPSE_RADII, axis=-1) < 1
        self._lips = np.linalg.norm((grid_xy - _LIPS_CENTRE) / _LIPS_RADII, axis=-1) < 1
        self._outside_lips = self._inside & ~self._lips
        self._texture: Texture | None = None
        self._light: LightChange | None = None
        self.reset()

    def reset(self) -> None:
        """Clear temporal state."""
        self._covered = np.zeros((_GRID, _GRID), dtype=np.float32)
        self._shift = np.zeros(3, dtype=np.float32)
        self._time_s: float | None = None

    def __call__(
        self,
        image: ImageLike,
        region: MouthRegion,
        reference: Texture,
        time_s: float,
        light: LightChange | None = None,
    ) -> FloatArray | None:
        """Return the visibility of the mouth region in an image.

        The visibility is float32 [h, w] in [0, 1], or None if the whole region is visible, as in a
        photo. The reference shows the face without occlusion; `light` is the change of the light
        since the reference.
        """
        if image is reference.image:
            return None
        elapsed_s = 0.0 if self._time_s is None else max(time_s - self._time_s, 0.0)
        self._time_s = time_s
        if reference is not self._texture:
            self._texture, self._light = reference, None
            self._cells = _cells(sample_box(reference.image, reference.box_to_image))
            self._measure_reference(self._cells)
        if light is not None or self._light is not None:
            cells = self._cells if light is None else light.apply(self._cells, self._grid_xy)
            self._measure_reference(cells)
        self._light = light
        box = sample_box(image, region.frame_box_to_image)
        covering = self._find_occlusion(self._relit_colours(_cells(box), elapsed_s))
        overlay = find_overlay(box)
        if overlay is not None:
            covering = np.maximum(covering, _covered_cells(overlay))
        self._covered *= np.float32(math.exp(-elapsed_s / _RELEASE_S))
        self._covered[self._covered < 0.05] = 0
        np.maximum(self._covered, covering, out=self._covered)
        if not self._covered.any():
            return None
        return 1 - region.resample(self._covered, cv2.INTER_LINEAR)

    def _measure_reference(self, cells: FloatArray) -> None:
        """Store the range of reference colours within `_REACH` cells of each cell.

        `cells` are the colours of the cells in the light of the frame. Colours of the lip area
        count for cells in that area only.
        """
        self._face = _log_colours(cells)
        reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _REACH + 1, 2 * _REACH + 1))
        lips, none = self._lips[..., None], np.float32(np.inf)
        least, most = (
            (cv2.erode(np.where(lips, none, face), reach), cv2.erode(face, reach))
            for face in (self._face, -self._face)
        )
        self._least, self._most = np.where(lips, *least[::-1]), -np.where(lips, *most[::-1])

    def _relit_colours(self, cells: FloatArray, elapsed_s: float) -> FloatArray:
        """Return the cell colours, corrected to the reference's light: float32 [grid, grid, 3]."""
        colours = _log_colours(cells)
        free = self._outside_lips & (self._covered == 0)
        if free.any():
            # Adapt only to slow changes of the light.
            shift = np.median((colours - self._face)[free], axis=0)
            self._shift += np.float32(min(elapsed_s / _ADAPT_S, 1.0)) * (shift - self._shift)
        return colours - self._shift

    def _find_occlusion(self, colours: FloatArray) -> FloatArray:
        """Return a mask of occluded cells, 0 or 1, grown from clear outliers: [grid, grid]."""
        excess = np.maximum(np.maximum(self._least - colours, colours - self._most), 0)
        excess[..., 2] = np.maximum(excess[..., 2] - _LUMINANCE_TOLERANCE, 0)
        distance = np.linalg.norm(excess, axis=-1)
        likely = self._inside & (distance > _LOW)
        seeds = likely & self._outside_lips & ((distance > _HIGH) | (self._covered > 0.5))
        if seeds.sum() < _MIN_SEEDS:
            return np.zeros_like(self._covered)
        # Reduce the luminance difference, because luminance varies more within an object.
        difference = (colours - np.median(colours[seeds], axis=0)) / np.array([1, 1, 3], np.float32)
        likely |= self._inside & self._lips & (np.linalg.norm(difference, axis=-1) < _HIGH)
        count, labels = cv2.connectedComponents(likely.astype(np.uint8))
        enough = np.bincount(labels[seeds], minlength=count) >= _MIN_SEEDS
        covering = enough[labels].astype(np.float32)
        closed = cv2.morphologyEx(covering, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        return np.asarray(cv2.dilate(closed, np.ones((3, 3), np.uint8)), dtype=np.float32)


def _covered_cells(overlay: UInt8Array) -> FloatArray:
    """Return the cells that a caption covers, 0 or 1, float32 [grid, grid]."""
    parts = cv2.resize(overlay.astype(np.float32), (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(parts > _MIN_OVERLAY, np.float32)


def _cells(box: UInt8Array) -> FloatArray:
    """Return the mean RGB colour of each cell of a sampled box, float32 [grid, grid, 3]."""
    cells = cv2.resize(box, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(cells, dtype=np.float32)


def _log_colours(cells: FloatArray) -> FloatArray:
    """Return log(red / green), log(blue / green) and log luminance of RGB: [grid, grid, 3]."""
    cells = np.maximum(cells, 0)
    logs = np.log(cells + _OFFSET)
    ratios = logs[..., [0, 2]] - logs[..., 1:2]
    return np.concatenate([ratios, np.log(cells @ _LUMINANCE + _OFFSET)[..., None]], -1)
