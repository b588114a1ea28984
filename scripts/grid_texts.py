"""What is said in GRID's clips, for `talkinghead revoice`; their names spell it.

python scripts/grid_texts.py corpora/grid > texts.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import PurePosixPath

from talkinghead.data.manifest import Manifest

_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    # As machines read a letter by itself: "a" would be an article.
    {"a": "ay", "i": "eye", "o": "oh", "u": "you"},
    {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four"}
    | {"5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine"},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)


def sentence(name: str) -> str:
    """`bbaf2n` is "bin blue at F two now."."""
    return " ".join(words.get(c, c.upper()) for c, words in zip(name, _WORDS, strict=True)) + "."


def main() -> None:
    """Writes the table of a prepared corpus to the standard output."""
    table = csv.writer(sys.stdout)
    table.writerow(["clip", "text"])
    for clip in Manifest.load(sys.argv[1]).clips:
        table.writerow([clip.id, sentence(PurePosixPath(clip.id).name)])


if __name__ == "__main__":
    main()
