"""Facial expressions over time: constant weights of blendshapes or a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.predict.source.head.expression.blendshapes import (
    BLENDSHAPES,
    blendshape_index,
    to_weights,
)
from talkinghead.predict.source.head.motion.timed_table import TIME, read_timed_table
from talkinghead.types import FloatArray

ExpressionInput: TypeAlias = Mapping[str, float] | str | Path
"""Weights of blendshapes by name, or a CSV file."""

_EXPECTED = (
    "give weights of ARKit's blendshapes, such as expression={browInnerUp: 0.5}, or a CSV file "
    "with the column time_s and a column for each blendshape, from 0 to 1"
)
# Columns of the recordings of ARKit's apps that are not blendshapes.
_OTHER_COLUMNS = ("timecode", "blendshapecount", "head", "lefteye", "righteye", TIME)


class ExpressionTrack:
    """Weights of blendshapes over time.

    Args:
        times_s: increasing times, [T].
        weights: weights at these times, [T, 52] in the order of `BLENDSHAPES`.
    """

    def __init__(self, times_s: FloatArray, weights: FloatArray) -> None:
        self._times_s, self._weights = times_s, weights

    def at(self, time_s: float) -> FloatArray:
        """Return the interpolated weights float32 [52]; the first and the last row are held."""
        after = int(np.searchsorted(self._times_s, time_s))
        before, after = max(after - 1, 0), min(after, len(self._times_s) - 1)
        span_s = float(self._times_s[after] - self._times_s[before])
        part = np.float32((time_s - float(self._times_s[before])) / span_s if span_s else 0.0)
        start, end = self._weights[before], self._weights[after]
        return np.asarray(start + part * (end - start), np.float32)


def read_expression(expression: ExpressionInput) -> ExpressionTrack:
    """Return the track of constant weights or of a CSV file.

    Raises:
        UsageError: The file cannot be read, a name is unknown, or a weight is out of range.
    """
    if not isinstance(expression, str | Path):
        return ExpressionTrack(np.zeros(1, np.float32), to_weights(expression)[None])
    path = Path(expression)
    table, lines = read_timed_table(path, "expression", None, _EXPECTED)
    columns = {n: v for n, v in table.items() if not n.startswith(_OTHER_COLUMNS)}
    weights = np.zeros((len(table[TIME]), len(BLENDSHAPES)), np.float32)
    for name, values in columns.items():
        index = blendshape_index(name)
        outside = np.flatnonzero((values < 0) | (values > 1))
        if len(outside):
            raise UsageError(
                f"expression={path}, line {lines[outside[0]]}: {BLENDSHAPES[index]}="
                f"{values[outside[0]]:g}; expected 0 to 1"
            )
        weights[:, index] = values
    if not columns:
        raise UsageError(f"expression={path} has no blendshapes: {_EXPECTED}")
    return ExpressionTrack(table[TIME], weights)
