"""Times of bilabial and rounded sounds, from a table."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from talkinghead.errors import UsageError

_CLOSED, _ROUNDED = ("p", "b", "m"), ("w", "u", "o")


@dataclass(frozen=True)
class SoundTimes:
    """Times in seconds of the sounds of a clip: p, b and m, and w, u and o."""

    closed_s: list[float] = field(default_factory=list)
    rounded_s: list[float] = field(default_factory=list)


def read_sound_times(path: Path) -> dict[str, SoundTimes]:
    """Return the times of the sounds, by clip.

    Args:
        path: CSV file with the columns clip (the name in the report) and time_s, one row per sound.
            The optional column sound is one of p, b, m, w, u and o; without it, all sounds count
            as p, b or m.

    Raises:
        UsageError: The file is missing or not such a table.
    """
    times: dict[str, SoundTimes] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                clip, sound = row["clip"].strip(), row.get("sound", "p").strip()
                if sound not in _CLOSED + _ROUNDED:
                    raise ValueError(f"sound {sound!r} is not one of p, b, m, w, u, o")
                sounds = times.setdefault(clip, SoundTimes())
                chosen = sounds.closed_s if sound in _CLOSED else sounds.rounded_s
                chosen.append(float(row["time_s"]))
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError, ValueError) as error:
        raise UsageError(
            f"closures={path} is not a table of times ({error!r}): give a CSV file with the "
            "columns clip and time_s, and optionally sound"
        ) from error
    return times
