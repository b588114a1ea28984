"""Distil the Whisper lip prior into the audio encoder of a generator.

python scripts/distil_lip_prior.py voices corpora/grid corpora/addresses --output new.safetensors

The voices are a folder of speech of many people; the corpora are prepared videos, of which the
first is in sync. With --state, an interrupted training is continued by the same command.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from talkinghead.data.manifest import write_json
from talkinghead.errors import TalkingHeadError
from talkinghead.models.checkpoint import GENERATOR, LoadedNetwork, load_generator, save_release
from talkinghead.predict.audio.whisper_prior import WhisperLipPrior
from talkinghead.runtime.whisper_encoder import WhisperEncoder
from talkinghead.training.distillation.distillation_sampler import DistillationOptions
from talkinghead.training.distillation.lip_distillation import (
    distil_lip_prior,
    opening_correlation_with_prior,
)
from talkinghead.training.distillation.recordings import (
    Recording,
    load_recordings,
    read_recordings,
    save_recordings,
    split_voices,
)


def main() -> None:
    """Write a release of the generator with the new audio encoder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("voices", type=Path)
    parser.add_argument("corpora", type=Path, nargs="+")
    parser.add_argument("--weights", type=float, nargs="+", default=[], help="of the corpora")
    parser.add_argument("--checkpoint", default="default", help="the generator to start from")
    parser.add_argument("--map", type=Path, help="map of the lip prior; default: the packaged one")
    parser.add_argument("--iterations", type=int, default=DistillationOptions.num_iterations)
    parser.add_argument("--max-minutes", type=float, help="limit of the training time")
    parser.add_argument("--seed", type=int, default=DistillationOptions.seed)
    parser.add_argument("--voices-name", default="other voices", help="for the metadata")
    parser.add_argument("--state", type=Path, help="folder of the state of the training")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = DistillationOptions(
        num_iterations=args.iterations,
        max_minutes=args.max_minutes,
        corpus_weights=args.weights,
        seed=args.seed,
    )
    try:
        _distil(args, options)
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")


def _distil(args: argparse.Namespace, options: DistillationOptions) -> None:
    loaded = load_generator(args.checkpoint)
    recordings, held_out = split_voices(_recordings(args, loaded), options.held_out_every)
    state = None if args.state is None else args.state / "training.pt"
    student = distil_lip_prior(loaded.model, loaded.spec, recordings, options, state)
    scores = {
        f"r_with_prior_{name}": opening_correlation_with_prior(model, loaded.spec, held_out)
        for name, model in (("before", loaded.model), ("after", student))
    }
    logging.info("%d other voices: %s", len(held_out), scores)
    keys = ("av", "license", "trained_on", "iteration", GENERATOR)
    meta = {key: loaded.meta[key] for key in keys}
    meta["trained_on"] = f"{meta['trained_on']}; audio encoder also on {args.voices_name}"
    save_release(args.output, GENERATOR, student, meta)
    if args.state is not None:
        write_json(args.state / "scores.json", {"num_voices": len(held_out), **scores})


def _recordings(args: argparse.Namespace, loaded: LoadedNetwork) -> list[Recording]:
    """Return the recordings, which are stored in the state's folder."""
    stored = None if args.state is None else args.state / "recordings.pt"
    if stored is not None and stored.is_file():
        return load_recordings(stored)
    whisper = WhisperEncoder(num_threads=torch.get_num_threads())
    prior = WhisperLipPrior(whisper, args.map)
    inputs = args.corpora, args.voices, whisper, prior
    recordings = read_recordings(loaded.model, loaded.spec, *inputs)
    if stored is not None:
        save_recordings(stored, recordings)
    return recordings


if __name__ == "__main__":
    main()
