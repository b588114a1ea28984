"""CSV files with a time and values in each row."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.types import FloatArray

TIME = "time_s"
"""Name of the column of the times in seconds."""


def read_timed_table(
    path: Path, option: str, columns: Sequence[str] | None, expected: str
) -> dict[str, FloatArray]:
    """Return columns of a CSV file by name, float64 [rows], with increasing times.

    Args:
        path: the file.
        option: name of the option in messages.
        columns: names of the columns to be read apart from `TIME`; None reads all columns whose
            first value is a number.
        expected: what to give instead, for messages.

    Raises:
        UsageError: The file cannot be read, or it is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, restkey="")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{option}={path} cannot be read ({error}): {expected}") from error
    names = [name for name in rows[0] if name] if rows else []
    if not rows or not {TIME, *(columns or ())} <= set(names):
        raise UsageError(f"{option}={path} has {', '.join(names) or 'no rows'}: {expected}")
    if columns is None:
        columns = [n for n in names if n != TIME and np.isfinite(_number(rows[0][n]))]
    table = {}
    for name in (TIME, *columns):
        table[name] = np.array([_number(row[name]) for row in rows])
        for row in np.flatnonzero(~np.isfinite(table[name])):
            raise UsageError(
                f"{option}={path}, line {row + 2}: {rows[row][name]!r} is not a number: {expected}"
            )
    if (np.diff(table[TIME]) <= 0).any():
        raise UsageError(f"{option}={path}: the times in {TIME} must increase in each row")
    return table


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return np.nan
