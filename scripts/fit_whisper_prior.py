"""Fit the map from Whisper features to lip motion for the Whisper lip prior.

python scripts/fit_whisper_prior.py corpora/grid
python scripts/fit_whisper_prior.py corpora/mine --whisper small --output small_lips.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from talkinghead.errors import TalkingHeadError
from talkinghead.predict.audio.whisper_prior import PACKAGED
from talkinghead.runtime.whisper_encoder import WhisperEncoder
from talkinghead.training.whisper_prior_fit import fit_whisper_lip_prior


def main() -> None:
    """Fit the map on the split "train" of a corpus."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--whisper", default="packaged", help="the Whisper model, as in stt.model")
    parser.add_argument("--output", type=Path, default=PACKAGED)
    options = parser.parse_args()
    if options.whisper != "packaged" and options.output == PACKAGED:
        parser.error("the packaged map belongs to the packaged Whisper: give another --output")
    try:
        fit_whisper_lip_prior(options.corpus, WhisperEncoder(options.whisper), options.output)
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
