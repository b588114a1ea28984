"""Transfer of a mouth that was rendered in a reduced image to the frame at full size.

Colours, edges and the model's RGB of a large mouth need no more pixels than those of a small one.
Only fine detail and noise have the full size: those of the frame outside the mouth, of the warped
texture inside it, and of neither where the model's RGB is, which is enlarged from a small image.

Shape suffixes: H and W are those of the region at full size, h and w those of the reduced region.
"""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.predict.compositing.mouth_region import MouthRegion, PaintedMouth, to_channels
from talkinghead.predict.compositing.warp.fine_grain import FineGrain
from talkinghead.types import FloatArray, UInt8Array

# Width of the edge within which the detail of the frame changes to that of the mouth, in radii of
# the ellipse.
_EDGE = 0.12


class FullSizeTransfer:
    """A transfer of the mouths of one face.

    Args:
        has_grain: whether the noise of the frame is added to the mouth.
        seed: seed of this noise.
    """

    def __init__(self, has_grain: bool, seed: int) -> None:
        self._grain = FineGrain(seed) if has_grain else None

    def reset(self) -> None:
        """Clear temporal state."""
        if self._grain:
            self._grain.reset()

    def __call__(
        self,
        rendered: UInt8Array,
        reduced: UInt8Array,
        frame: UInt8Array,
        mouth: PaintedMouth,
        region: MouthRegion,
        time_s: float,
    ) -> UInt8Array:
        """Return the region of the frame with the mouth, uint8 [H, W, 3].

        Args:
            rendered: the reduced region with the mouth, uint8 [h, w, 3].
            reduced: the reduced region without it, uint8 [h, w, 3].
            frame: the region without it at full size, uint8 [H, W, 3].
            mouth: the mouth, with its texture at full size.
            region: the reduced region.
            time_s: time of the frame.
        """
        texture = mouth.texture
        assert texture is not None
        height, width = frame.shape[:2]
        inside = ((1 - region.radius) / np.float32(_EDGE)).clip(0, 1)
        if region.visibility is not None:
            inside *= region.visibility
        # Weights of the detail of the texture, and of no detail.
        textured, smooth = inside * (1 - mouth.rgb_weight), inside * mouth.rgb_weight
        small = cv2.resize(texture, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
        apart = np.asarray(cv2.subtract(small, reduced, dtype=cv2.CV_32F), np.float32)
        change = cv2.subtract(rendered, reduced, dtype=cv2.CV_32F)
        change = np.asarray(change, np.float32) - to_channels(textured) * apart
        full_weight = cv2.resize(textured, (width, height))
        blended = cv2.blendLinear(frame, texture, 1 - full_weight, full_weight)
        full_change = np.asarray(cv2.resize(change, (width, height)), np.float32)
        _smooth_out(full_change, frame, reduced, smooth, region.factor)
        if self._grain is not None:
            grain = self._grain(frame, texture, region, (textured, smooth), time_s)
            if grain is not None:
                full_change += to_channels(grain)
        return np.asarray(cv2.add(blended, full_change, dtype=cv2.CV_8U), np.uint8)


def _smooth_out(
    change: FloatArray, frame: UInt8Array, reduced: UInt8Array, weight: FloatArray, factor: int
) -> None:
    """Subtract the detail of a frame [H, W, 3] from its change where a weight [h, w] is not 0."""
    x, y, width, height = cv2.boundingRect((weight > 0).view(np.uint8))
    if not width:
        return
    small = slice(y, y + height), slice(x, x + width)
    full = tuple(slice(factor * part.start, factor * part.stop) for part in small)
    size = factor * width, factor * height
    detail = cv2.subtract(frame[full], cv2.resize(reduced[small], size), dtype=cv2.CV_32F)
    change[full] -= to_channels(np.asarray(cv2.resize(weight[small], size))) * detail
