"""Write the times of bilabial and rounded sounds of the GRID corpus, for their rates.

python scripts/grid_closures.py corpora/align closures.csv
talkinghead evaluate corpus=corpora/grid output=scores closures=closures.csv

The alignments are `ALIGN/SPEAKER/SENTENCE.align`, one word per line: first and last time in units
of 1/25000 s, and the word. The letters b and p are separate words. Bilabial sounds are the
first ones of words; rounded sounds are in the middle of words.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

_UNITS_PER_SECOND = 25_000
_BILABIAL = ("b", "p", "m")
_ROUNDED = {
    **{"white": "w", "one": "w"},
    **{"blue": "u", "two": "u", "q": "u", "u": "u"},
    **{"four": "o", "o": "o"},
}


def read_sounds(folder: Path) -> Iterator[tuple[str, float, str]]:
    """Yield the clip id, the time in seconds, and the sound: p, b, m, w, u or o."""
    for path in sorted(folder.rglob("*.align")):
        clip = path.relative_to(folder).with_suffix("").as_posix()
        for line in path.read_text(encoding="utf-8").splitlines():
            start, stop, word = line.split()
            if word.startswith(_BILABIAL):
                yield clip, int(start) / _UNITS_PER_SECOND, word[0]
            if word in _ROUNDED:
                yield clip, (int(start) + int(stop)) / 2 / _UNITS_PER_SECOND, _ROUNDED[word]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("align", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    with options.output.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("clip", "time_s", "sound"))
        rows = read_sounds(options.align)
        table.writerows((clip, f"{time_s:.3f}", sound) for clip, time_s, sound in rows)


if __name__ == "__main__":
    main()
