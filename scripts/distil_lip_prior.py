"""Distil the Whisper lip prior into the audio encoder of a generator.

python scripts/distil_lip_prior.py voices corpora/grid corpora/addresses --output new.safetensors

The voices are a folder of speech of many people; the corpora are prepared videos.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from talkinghead.errors import TalkingHeadError
from talkinghead.models.checkpoint import GENERATOR, load_generator, save_release
from talkinghead.predict.audio.whisper_prior import WhisperLipPrior
from talkinghead.runtime.whisper_encoder import WhisperEncoder
from talkinghead.training.lip_distillation import (
    DistillationOptions,
    distil_lip_prior,
    read_recordings,
)


def main() -> None:
    """Write a release of the generator with the new audio encoder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("voices", type=Path)
    parser.add_argument("corpora", type=Path, nargs="+")
    parser.add_argument("--checkpoint", default="default", help="the generator to start from")
    parser.add_argument("--iterations", type=int, default=DistillationOptions.num_iterations)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = DistillationOptions(num_iterations=args.iterations)
    loaded, whisper = load_generator(args.checkpoint), WhisperEncoder()
    try:
        recordings, weights = read_recordings(
            loaded.model,
            loaded.spec,
            args.corpora,
            args.voices,
            whisper,
            WhisperLipPrior(whisper),
            options.voice_fraction,
        )
        student = distil_lip_prior(loaded.model, loaded.spec, recordings, weights, options)
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")
    keys = ("av", "license", "trained_on", "iteration", GENERATOR)
    save_release(args.output, GENERATOR, student, {key: loaded.meta[key] for key in keys})


if __name__ == "__main__":
    main()
