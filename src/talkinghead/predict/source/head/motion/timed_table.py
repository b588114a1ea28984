"""CSV files with a time and values in each row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from talkinghead.csv_table import parse_number, read_csv_table
from talkinghead.errors import UsageError
from talkinghead.types import FloatArray

TIME = "time_s"
"""Name of the column of the times in seconds."""


def read_timed_table(
    path: Path, option: str, columns: Sequence[str] | None, expected: str
) -> tuple[dict[str, FloatArray], list[int]]:
    """Return columns of a CSV file by name in lower case, float64 [rows], and the rows' lines.

    The times increase. The file may be as a spreadsheet program writes it (see `csv_table`).

    Args:
        path: the file.
        option: name of the option in messages.
        columns: names of the columns to be read apart from `TIME`; None reads all columns whose
            first value is a number.
        expected: what to give instead, for messages.

    Raises:
        UsageError: The file cannot be read, or it is not such a table.
    """
    found = read_csv_table(path, option, expected)
    names, rows = found.columns, found.rows
    if not rows or not {TIME, *(columns or ())} <= set(names):
        described = found.found if rows else "no rows"
        raise UsageError(f"{option}={path} has {described}: {expected}")
    if columns is None:
        first = rows[0].values
        columns = [name for name in names if name != TIME and np.isfinite(_number(first[name]))]
    table = {}
    for name in (TIME, *columns):
        table[name] = np.array([_number(row.values[name]) for row in rows])
        for index in np.flatnonzero(~np.isfinite(table[name])):
            row = rows[index]
            raise UsageError(
                f"{option}={path}, line {row.line}: {row.values[name]!r} is not a number: "
                f"{expected}"
            )
    if (np.diff(table[TIME]) <= 0).any():
        raise UsageError(f"{option}={path}: the times in {TIME} must increase in each row")
    return table, [row.line for row in rows]


def _number(text: str) -> float:
    try:
        return parse_number(text)
    except ValueError:
        return np.nan
