"""Closing of the lips of a reference with an open mouth.

The generator's flow has a coarse grid (3 canonical pixels). Between a cell of the upper and a cell
of the lower lip it is interpolated, and the positions in between take their texture from the open
mouth of the reference: closed lips would show a line of teeth.

Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from talkinghead.models.lipsync.lip_warp import LOWER_EDGE, UPPER_EDGE, lip_edge
from talkinghead.predict.compositing.stabiliser import MouthFields
from talkinghead.types import FloatArray

# Lengths are fractions of the side of the mouth box.
_SIZE = 192
# Gaps of the reference from and up to which the correction increases: detected gaps of closed lips
# are up to the first length.
_CLOSED, _OPEN = 0.02, 0.04
# Thickness of the open mouth that the coarse grid adds. It is removed from mouths that are thinner
# than the first length, and from mouths up to the second length with a decreasing weight.
_EXCESS, _THIN, _THICK = 0.032, 0.036, 0.06
# Height of the lips that are stretched over the removed part.
_STRETCHED = 0.055
# Rows of the box that are searched for the mouth, beyond the lips of the reference.
_ABOVE, _BELOW = 0.08, 0.3


class LipClosure:
    """A correction of the mouths that are generated from one reference.

    Args:
        lips: lips of the reference [20, 2] in units of the mouth box.

    Attributes:
        is_needed: False if the mouth of the reference is closed; fields are then unchanged.
    """

    def __init__(self, lips: FloatArray) -> None:
        points = torch.from_numpy(lips.astype(np.float32))[None]
        self._places = np.linspace(0, 1, 257, dtype=np.float32)
        places = torch.from_numpy(self._places)[None, None]
        edges = [lip_edge(places, points[:, edge])[0, 0] for edge in (UPPER_EDGE, LOWER_EDGE)]
        self._top, self._bottom = (edge.numpy() for edge in edges)
        gap = float((self._bottom - self._top).max())
        first, last = lips[:, 1].min() - _ABOVE, lips[:, 1].max() + _BELOW
        self._rows = slice(*np.clip([first * _SIZE, last * _SIZE], 0, _SIZE).astype(int))
        first, last = lips[0, 0] - _ABOVE, lips[6, 0] + _ABOVE
        self._columns = slice(*np.clip([first * _SIZE, last * _SIZE], 0, _SIZE).astype(int))
        is_inside = all(part.stop - part.start > 2 for part in (self._rows, self._columns))
        self._excess = _EXCESS * float(np.clip((gap - _CLOSED) / (_OPEN - _CLOSED), 0, 1))
        self.is_needed = self._excess > 0 and is_inside

    def __call__(self, fields: MouthFields) -> MouthFields:
        """Return the fields with a finer grid, in which thin open mouths are closed."""
        if not self.is_needed:
            return fields
        part = self._rows, self._columns
        flow, rgb, mask = map(_enlarge, (fields.flow, fields.rgb, fields.mask))
        rows, columns = (np.arange(s.start, s.stop, dtype=np.float32) for s in part)
        grid = np.stack(np.meshgrid((columns + 0.5) / _SIZE, (rows + 0.5) / _SIZE), -1)
        places: FloatArray = grid.astype(np.float32)
        source: FloatArray = places + flow[part]
        moved_RC = self._moved_rows(source)
        if moved_RC is None:
            return fields
        flow[part] = _take_rows(source, moved_RC) - places
        rgb[part], mask[part] = _take_rows(rgb[part], moved_RC), _take_rows(mask[part], moved_RC)
        return MouthFields(flow, rgb, mask)

    def _moved_rows(self, source: FloatArray) -> FloatArray | None:
        """Return the row [R, C] from which each position is taken; None if all are unchanged.

        Args:
            source: positions in the reference [R, C, 2].
        """
        height = source.shape[0]
        x_RC, y_RC = source[..., 0], source[..., 1]
        top_C, bottom_C = (
            _crossing(y_RC - np.interp(x_RC, self._places, edge).astype(np.float32))
            for edge in (self._top, self._bottom)
        )
        thickness = (bottom_C - top_C) / _SIZE
        weight = ((_THICK - thickness) / (_THICK - _THIN)).clip(0, 1)
        removed_C = np.minimum(thickness.clip(0), self._excess * weight) * _SIZE / 2
        # Neighbouring columns are moved equally.
        removed_C = cv2.GaussianBlur(removed_C[None], (0, 0), 1.5)[0]
        if removed_C.max() < 0.05:
            return None
        stretched = _STRETCHED * _SIZE
        rows = np.arange(height, dtype=np.float32)[:, None]
        factor = stretched / (stretched + removed_C)
        upper = top_C - (top_C + removed_C - rows) * factor
        lower = bottom_C + (rows - (bottom_C - removed_C)) * factor
        left = np.maximum(bottom_C - top_C - 2 * removed_C, 1e-3)
        middle = top_C + (rows - top_C - removed_C) * (bottom_C - top_C) / left
        moved = np.where(rows < top_C + removed_C, upper, middle)
        moved = np.where(rows > bottom_C - removed_C, lower, moved)
        moved = np.where(rows < top_C - stretched, rows, moved)
        moved = np.where(rows > bottom_C + stretched, rows, moved)
        return np.asarray(moved, np.float32)


def _enlarge(field: FloatArray) -> FloatArray:
    resized = cv2.resize(field, (_SIZE, _SIZE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def _take_rows(field: FloatArray, rows_RC: FloatArray) -> FloatArray:
    """Return a field [R, C] or [R, C, N], interpolated at other rows of each column."""
    columns_RC = np.zeros_like(rows_RC) + np.arange(rows_RC.shape[1], dtype=np.float32)
    border = cv2.BORDER_REPLICATE
    taken = cv2.remap(field, columns_RC, rows_RC, cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(taken, np.float32)


def _crossing(distance_RC: FloatArray) -> FloatArray:
    """Return the row [C], a fraction, at which a distance that increases with the row is 0."""
    before, after = distance_RC[:-1], distance_RC[1:]
    step = np.maximum(after - before, 1e-6)
    fraction = (-before / step).clip(0, 1)
    return np.asarray(fraction.sum(0), np.float32)
