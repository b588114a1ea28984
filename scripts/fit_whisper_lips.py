"""How lips move, as Whisper's encoder hears it: the map that talkinghead.speech.whisper_lips reads.

python scripts/fit_whisper_lips.py corpora/grid
python scripts/fit_whisper_lips.py corpora/mine --whisper small --output small_lips.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from talkinghead.errors import TalkingHeadError
from talkinghead.speech.stt.whisper import Whisper
from talkinghead.speech.whisper_lips import PACKAGED, fit_whisper_lips


def main() -> None:
    """Fits it on a corpus's split "train"."""
    parser = argparse.ArgumentParser(description="Fit the map from Whisper's encoder to lips.")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--whisper", default="packaged", help="as stt.model")
    parser.add_argument("--output", type=Path, default=PACKAGED)
    options = parser.parse_args()
    if options.whisper != "packaged" and options.output == PACKAGED:
        parser.error("the packaged map belongs to the packaged Whisper: give another --output")
    try:
        fit_whisper_lips(options.corpus, Whisper(options.whisper), options.output)
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
