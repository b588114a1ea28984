"""How lips move, as Whisper's encoder hears it: the map that talkinghead.predict.audio.whisper_prior reads.

python scripts/fit_whisper_lip_prior.py corpora/grid
python scripts/fit_whisper_lip_prior.py corpora/mine --whisper small --output small_lips.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from talkinghead.errors import TalkingHeadError
from talkinghead.predict.audio.whisper_prior import PACKAGED, fit_whisper_lip_prior
from talkinghead.speech.stt.whisper import Whisper


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
        fit_whisper_lip_prior(options.corpus, Whisper(options.whisper), options.output)
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
