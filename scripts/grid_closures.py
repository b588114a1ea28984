"""Write the times of word-initial b, p and m of the GRID corpus, for the closure rate.

python scripts/grid_closures.py corpora/align closures.csv
talkinghead evaluate corpus=corpora/grid output=scores closures=closures.csv

The alignments are `ALIGN/SPEAKER/SENTENCE.align`, one word per line: first and last time in units
of 1/25000 s, and the word. The letters b and p are words of their own.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

_UNITS_PER_SECOND = 25_000
_BILABIAL = ("b", "p", "m")


def read_closures(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the clip id and the time in seconds of each word that begins with b, p or m."""
    for path in sorted(folder.rglob("*.align")):
        clip = path.relative_to(folder).with_suffix("").as_posix()
        for line in path.read_text(encoding="utf-8").splitlines():
            start, _, word = line.split()
            if word.startswith(_BILABIAL):
                yield clip, int(start) / _UNITS_PER_SECOND


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("align", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    with options.output.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("clip", "time_s"))
        table.writerows((clip, f"{time_s:.3f}") for clip, time_s in read_closures(options.align))


if __name__ == "__main__":
    main()
