"""Times of bilabial and rounded sounds, from a table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from talkinghead.csv_table import parse_number, read_csv_table
from talkinghead.errors import UsageError

_CLOSED, _ROUNDED = ("p", "b", "m"), ("w", "u", "o")
_EXPECTED = "give a CSV file with the columns clip and time_s, and optionally sound"


@dataclass(frozen=True)
class SoundTimes:
    """Times in seconds of the bilabial (p, b, m) and rounded (w, u, o) sounds of a clip."""

    closed_s: list[float] = field(default_factory=list)
    rounded_s: list[float] = field(default_factory=list)


def read_sound_times(path: Path) -> dict[str, SoundTimes]:
    """Return the times of the sounds of each clip, keyed by the name of the clip.

    Args:
        path: CSV file with the columns clip (the name in the report) and time_s, one row per sound.
            The optional column sound is one of p, b, m, w, u and o; without it, all sounds count
            as p, b or m.

    Raises:
        UsageError: The file is missing or not such a table.
    """
    times: dict[str, SoundTimes] = {}
    table = read_csv_table(path, "closures", _EXPECTED)
    if not {"clip", "time_s"} <= set(table.columns):
        raise UsageError(f"closures={path} has {table.found}: {_EXPECTED}")
    for row in table.rows:
        sound = row.values.get("sound", "p").lower()
        try:
            time_s = parse_number(row.values["time_s"])
        except ValueError:
            time_s = math.nan
        if sound not in _CLOSED + _ROUNDED or not math.isfinite(time_s):
            raise UsageError(
                f"closures={path}, line {row.line}: expected a time in seconds and one of p, b, m, "
                f"w, u and o, got {row.values['time_s']!r} and {sound!r}"
            )
        sounds = times.setdefault(row.values["clip"], SoundTimes())
        chosen = sounds.closed_s if sound in _CLOSED else sounds.rounded_s
        chosen.append(time_s)
    return times
