"""Times of bilabial sounds, from a table."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from talkinghead.errors import UsageError


def read_closure_times(path: Path) -> dict[str, list[float]]:
    """Return the times in seconds of the sounds p, b and m, by clip.

    Args:
        path: CSV file with the columns clip (the name in the report) and time_s, one row per sound.

    Raises:
        UsageError: The file is missing or not such a table.
    """
    times: defaultdict[str, list[float]] = defaultdict(list)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                times[row["clip"].strip()].append(float(row["time_s"]))
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError, ValueError) as error:
        raise UsageError(
            f"closures={path} is not a table of times ({error!r}): give a CSV file with the "
            "columns clip and time_s"
        ) from error
    return dict(times)
