"""The sides of the upper and of the lower lip in the image, for references with an open mouth.

The generator's flow has a coarse grid (3 canonical pixels). Interpolated between closed lips, it
would take its texture from the open mouth of the reference: a line of teeth. Hence the flow of
each lip is interpolated by itself, and chosen at the image's resolution (see
`talkinghead.models.lipsync.lip_seam`, which does the same at that of the generator).

Shape suffixes: h and w are the region's.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from talkinghead.models.lipsync.lip_seam import (
    MAX_SOFTNESS,
    MIN_SOFTNESS,
    SEAM_SOFTNESS,
    centre_line,
)
from talkinghead.types import FloatArray

# Gap between the lips of a reference, in sides of the mouth box, above which its mouth is open.
_OPEN = 0.03
# Reach of the change between the sides, and of closed lips, in sides of the mouth box.
_REACH = 0.1
# Positions from the left to the right edge of the box at which the line of the lips is computed.
_NUM_PLACES = 257


def is_open(lips: FloatArray) -> bool:
    """Return whether the mouth with lips [20, 2], in sides of the mouth box, is open."""
    return bool(_line(lips)[:, 1].max() > _OPEN / 2)


def lip_line_box(lips: FloatArray) -> FloatArray:
    """Return the corners [4, 2] of the box around the line between lips [20, 2].

    Outside of it, the flow of the generator is that of one side.
    """
    inner = lips[12:]
    (x0, y0), (x1, y1) = inner.min(0) - _REACH, inner.max(0) + _REACH
    return np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float32)


def lip_sides(
    lips: FloatArray, box_xy: FloatArray, side_px: float, factor: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Return weights of the side of the lower lip, and of the seam of closed lips.

    Args:
        lips: landmarks [20, 2] of the generated lips in sides of the mouth box.
        box_xy: (x, y) of each pixel in sides of the box, float32 [h, w, 2].
        side_px: side of the box in pixels.
        factor: number by which the size of the results is larger.

    Returns:
        Two arrays, float32 [factor h, factor w] in [0, 1].
    """
    columns = np.zeros_like(box_xy)
    columns[..., 0] = box_xy[..., 0] * (_NUM_PLACES - 1)
    border, linear = cv2.BORDER_REPLICATE, cv2.INTER_LINEAR
    line = cv2.remap(_line(lips)[None], columns, None, linear, borderMode=border)  # type: ignore[call-overload]
    line[..., 0] = box_xy[..., 1] - line[..., 0]
    if factor > 1:
        line = cv2.resize(line, None, fx=factor, fy=factor)
    below, half_gap, outside = np.moveaxis(line, -1, 0)
    # The constants are in half sides.
    softness = (SEAM_SOFTNESS * half_gap + outside).clip(MIN_SOFTNESS / 2, MAX_SOFTNESS / 2)
    is_lower = 0.5 + 0.5 * np.tanh(below / (2 * softness))
    distance = np.square(below) + np.square(half_gap + outside)
    return is_lower, np.exp(-distance * np.float32((factor * side_px) ** 2))


def _line(lips: FloatArray) -> FloatArray:
    """Return the height of the line between the lips, half of the gap, and the distance beyond.

    The result is float32 [_NUM_PLACES, 3]; see `centre_line`.
    """
    points = torch.from_numpy(np.asarray(lips, np.float32))[None]
    places = torch.linspace(0, 1, _NUM_PLACES)[None, None]
    below, half_gap, outside = centre_line(places, torch.zeros(1, 1, 1), points)
    return torch.stack([-below[0, 0], half_gap[0, 0], outside[0, 0]], 1).numpy()
