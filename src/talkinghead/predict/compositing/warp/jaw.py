"""Movement of the chin of a photo with the lower lip.

The generator changes only the mouth box, whose edges must not move. The frames of a video show the
motion of the chin; in a photo it would not move while the mouth opens.
"""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.features.faces.alignment import invert, transform_points
from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.predict.compositing.mouth_region import sample_pixels
from talkinghead.predict.source.head.head_geometry import smooth_step
from talkinghead.types import AVSpec, FloatArray

# Displacement of the chin relative to that of the lower lip.
_CHIN_FRACTION = 0.6
# Distances below the lower lip, in pixels of the canonical face, between which the displacement
# rises to that of the chin, and between which it falls to zero in the neck.
_RISE_PX, _FALL_PX = (2.0, 30.0), (48.0, 92.0)
# Standard deviation and limits of the displacement in horizontal direction.
_SIGMA_PX, _SIDE_PX = 40.0, (60.0, 90.0)
# Number of steps in which the displaced lower lip is found in the backward flow.
_NUM_STEPS = 3
# Smaller displacements are not visible.
_MIN_DROP_PX = 0.05
_LOWER_LIP = slice(7, 10)


class JawWarp:
    """A warp of the region around the chin of a face in a photo.

    Args:
        transform: Transform [2, 3] from the photo to the canonical face.
        lips: Lips of the photo [20, 2] in image pixels.
        spec: The generator's AVSpec.
        height, width: Size of the photo.
    """

    def __init__(
        self, transform: FloatArray, lips: FloatArray, spec: AVSpec, height: int, width: int
    ) -> None:
        points = transform_points(lips, transform)
        corner_xy = np.array([spec.mouth_x, spec.mouth_y], np.float32)
        self._lower_lip = (points[_LOWER_LIP] - corner_xy) / spec.mouth_side
        self._mouth_side = spec.mouth_side
        to_image = invert(transform)
        x, bottom = float(points[:, 0].mean()), float(points[:, 1].max())
        side, low = _SIDE_PX[1], _FALL_PX[1]
        box = [(x - side, bottom), (x + side, bottom), (x - side, bottom + low)]
        box.append((x + side, bottom + low))
        corners = transform_points(np.array(box, np.float32), to_image)
        x0, y0 = np.floor(corners.min(0)).astype(int).clip(0, (width, height))
        x1, y1 = np.ceil(corners.max(0)).astype(int).clip(0, (width, height))
        self._rows, self._columns = slice(int(y0), int(y1)), slice(int(x0), int(x1))
        grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), -1).astype(np.float32)
        self._grid = grid - np.array([x0, y0], np.float32)
        face = transform_points(grid.reshape(-1, 2), transform).reshape(grid.shape)
        weight = _weight(face[..., 0] - x, face[..., 1] - bottom)
        # Displacement in image pixels per pixel of the canonical face.
        self._down = (weight[..., None] * to_image[:, 1]).astype(np.float32)

    def __call__(self, image: PatchedImage, flow: FloatArray) -> PatchedImage:
        """Return the image with the chin moved; `flow` is that of the mouth's `MouthFields`."""
        drop_px = self._drop_px(flow)
        if abs(drop_px) < _MIN_DROP_PX or not self._grid.size:
            return image
        crop = image.crop(self._rows, self._columns)
        path: FloatArray = np.asarray(
            cv2.scaleAdd(self._down, -_CHIN_FRACTION * drop_px, self._grid), np.float32
        )
        pixels = np.asarray(sample_pixels(crop, path, cv2.INTER_LINEAR), np.uint8)
        return image.with_patch(Patch(self._rows.start, self._columns.start, pixels))

    def _drop_px(self, flow: FloatArray) -> float:
        """Return the displacement of the lower lip in pixels of the canonical face."""
        height, width = flow.shape[:2]
        drop = 0.0
        for _ in range(_NUM_STEPS):
            position = (self._lower_lip + np.array([0, drop], np.float32)) * (width, height)
            columns, rows = position.astype(int).clip(0, (width - 1, height - 1)).T
            drop = -float(flow[rows, columns, 1].mean())
        return drop * self._mouth_side


def _weight(across: FloatArray, below: FloatArray) -> FloatArray:
    """Return the weight of the displacement at distances from the lower lip's middle."""
    vertical = _rise(below, *_RISE_PX) * (1 - _rise(below, *_FALL_PX))
    horizontal = np.exp(-((across / _SIGMA_PX) ** 2) / 2)
    horizontal = horizontal * (1 - _rise(np.abs(across), *_SIDE_PX))
    return np.asarray(vertical * horizontal, np.float32)


def _rise(values: FloatArray, low: float, high: float) -> FloatArray:
    """Return weights that rise smoothly from 0 at `low` to 1 at `high`."""
    return np.asarray(smooth_step((values - low) / (high - low)), np.float32)
