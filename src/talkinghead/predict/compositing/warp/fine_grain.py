"""Noise of a frame at full size that a mouth rendered in a reduced image lacks.

Shape suffixes: H and W are those of the region at full size, h and w those of the reduced region,
n the number of sampled pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.compositing.mouth_region import MouthRegion
from talkinghead.predict.compositing.stabiliser import OneEuroFilter
from talkinghead.types import FloatArray, UInt8Array

_MIN_PIXELS = 16
# Smaller standard deviations in levels are not visible.
_MIN_NOISE = 0.3
_ROUNDING_NOISE = 1 / 12
# Textures with more than this fraction of the noise of the frame get no noise.
_CLEAN_TEXTURE = 0.9
_CUTOFF_HZ = 0.7
_TILE = 240
_CONSTANT_NOISE = 0.999
_Indices = npt.NDArray[np.intp]


class FineGrain:
    """A generator of noise, with the level and the temporal correlation of that of the frames.

    It has no part that remains in the reduced image, to which renderers add noise.

    Args:
        seed: seed of the noise.

    Paper: Immerkaer, "Fast Noise Variance Estimation", CVIU 1996.
    """

    def __init__(self, seed: int) -> None:
        self._level, self._seed = OneEuroFilter(_CUTOFF_HZ), seed
        bank = np.random.default_rng(seed).standard_normal((_TILE, _TILE))
        self._bank = bank.astype(np.float32)
        self.reset()

    def reset(self) -> None:
        """Clear temporal state and restart the noise from its seed."""
        self._level.reset()
        self._random = np.random.default_rng(self._seed)
        self._tile = self._bank
        self._previous: tuple[UInt8Array, int, int] | None = None

    def __call__(
        self,
        frame: UInt8Array,
        texture: UInt8Array,
        region: MouthRegion,
        weights: tuple[FloatArray, FloatArray],
        time_s: float,
    ) -> FloatArray | None:
        """Return the noise that a mouth lacks, float32 [H, W], or None if it is not visible.

        Args:
            frame: the region of the frame at full size, uint8 [H, W, 3].
            texture: the warped texture, uint8 [H, W, 3].
            region: the reduced region.
            weights: weights [h, w] of the texture, and of an image without noise.
            time_s: time of the frame.
        """
        part = region.frame_part
        y, x = part[0].start, part[1].start
        previous, self._previous = self._previous, (frame, y, x)
        step, ring = region.skin_ring
        if ring.sum() < _MIN_PIXELS:
            return None
        rows, columns = (region.factor * step * index for index in np.nonzero(ring))
        here = _residual(frame, rows, columns)
        noise = np.array([_deviation(here), _deviation(_residual(texture, rows, columns))])
        total, kept = self._level(np.minimum(noise, noise[0]).astype(np.float32), time_s).tolist()
        if previous is not None and previous[0] is not frame:
            before = _residual(previous[0], rows + y - previous[1], columns + x - previous[2])
            power = float(np.sqrt((here @ here) * (before @ before)))
            self._update(float(here @ before) / max(power, 1e-6))
        if total < _MIN_NOISE:
            return None
        textured, smooth = weights
        if kept > _CLEAN_TEXTURE * total:
            kept = total
        present = textured * kept + (1 - textured - smooth) * total
        missing = total**2 - present**2
        if not (missing > _MIN_NOISE**2).any():
            return None
        level = cv2.resize(np.sqrt(np.maximum(missing, 0)), frame.shape[1::-1])
        return np.asarray(level * self._noise(part, region.factor), np.float32)

    def _update(self, correlation: float) -> None:
        """Generate the noise of the next frame, with a correlation to the current one."""
        if correlation >= _CONSTANT_NOISE:
            return
        kept = np.float32(max(correlation, 0))
        new = np.roll(self._bank, self._random.integers(_TILE, size=2), (0, 1))
        self._tile = kept * self._tile + np.sqrt(1 - kept * kept) * new

    def _noise(self, part: tuple[slice, slice], factor: int) -> FloatArray:
        """Return noise [H, W] without its part in an image that is reduced by a factor."""
        side = _TILE // factor
        tile = self._tile[: side * factor, : side * factor]
        size = tile.shape
        coarse = cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA)
        shifts = [-(p.start % length) for p, length in zip(part, size, strict=True)]
        tile = np.roll(tile - cv2.resize(coarse, size), shifts, (0, 1))
        height, width = (p.stop - p.start for p in part)
        tiled = np.tile(tile, (-(-height // size[0]), -(-width // size[1])))
        return tiled[:height, :width]


def _deviation(residual: FloatArray) -> float:
    """Return the standard deviation of the noise, without that of the rounding."""
    variance = (1.4826 * float(np.median(np.abs(residual)))) ** 2 - _ROUNDING_NOISE
    return float(np.sqrt(max(variance, 0)))


def _residual(image: UInt8Array, rows: _Indices, columns: _Indices) -> FloatArray:
    """Return sampled pixels of an image [H, W, 3] without gradients and edges, float32 [n].

    Pixels outside the image have the values of its edge.
    """
    height, width = image.shape[:2]
    rows, columns = rows.clip(1, height - 2), columns.clip(1, width - 2)
    offsets = np.arange(-1, 2)
    near = image[rows[:, None, None] + offsets[:, None], columns[:, None, None] + offsets]
    grey = cv2.cvtColor(near.reshape(-1, 9, 3), cv2.COLOR_RGB2GRAY).reshape(-1, 3, 3)
    kernel: FloatArray = np.array([1, -2, 1], np.float32)
    return np.asarray((grey.astype(np.float32) @ kernel) @ kernel / 6, np.float32)
