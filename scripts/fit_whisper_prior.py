"""Fit the map from speech features to lip motion for the Whisper lip prior.

python scripts/fit_whisper_prior.py corpora/grid corpora/addresses --weights 0.7 0.3
python scripts/fit_whisper_prior.py corpora/mine --whisper small --output small_lips.safetensors
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from talkinghead.errors import TalkingHeadError
from talkinghead.predict.audio.lip_priors.whisper_prior import PACKAGED
from talkinghead.runtime.whisper_encoder import WhisperEncoder
from talkinghead.training.whisper_prior_fit import PriorFitOptions, fit_whisper_lip_prior


def main() -> None:
    """Fit the map on the splits "train" of corpora."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpora", type=Path, nargs="+", help="the first one is in sync")
    parser.add_argument("--weights", type=float, nargs="+", default=[], help="of the corpora")
    parser.add_argument("--gain", type=float, default=PriorFitOptions.gain)
    parser.add_argument("--whisper", default="packaged", help="the Whisper model, as in stt.model")
    parser.add_argument("--output", type=Path, default=PACKAGED)
    options = parser.parse_args()
    if options.whisper != "packaged" and options.output == PACKAGED:
        parser.error("the packaged map belongs to the packaged Whisper: give another --output")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    fit_options = PriorFitOptions(corpus_weights=options.weights, gain=options.gain)
    whisper = WhisperEncoder(options.whisper)
    try:
        fit_whisper_lip_prior(options.corpora, whisper, options.output, fit_options)
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
