"""Distil the Whisper lip prior into a small network, for `lip_prior=distilled`.

python scripts/distil_lip_prior.py voices corpora/grid corpora/addresses --output lips.safetensors

The voices are a folder of speech of many people; the corpora are prepared videos. With --state, an
interrupted training is continued by the same command.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from talkinghead.data.manifest import write_json
from talkinghead.errors import TalkingHeadError
from talkinghead.models.checkpoint import LIP_MOTION, load_lip_motion_network, save_release
from talkinghead.models.lip_motion_network import LipMotionNetwork
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior
from talkinghead.runtime.whisper_encoder import WhisperEncoder
from talkinghead.training.distillation.distillation_options import DistillationOptions
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
from talkinghead.types import AVSpec


def main() -> None:
    """Write a release of the network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("voices", type=Path)
    parser.add_argument("corpora", type=Path, nargs="+")
    parser.add_argument("--weights", type=float, nargs="+", default=[], help="of the corpora")
    parser.add_argument("--start", type=Path, help="weights to start from; default: random")
    parser.add_argument("--map", type=Path, help="map of the lip prior; default: the packaged one")
    parser.add_argument("--iterations", type=int, default=DistillationOptions.num_iterations)
    parser.add_argument("--max-minutes", type=float, help="limit of the training time")
    parser.add_argument("--seed", type=int, default=DistillationOptions.seed)
    parser.add_argument("--license", default="unknown", help="for the metadata")
    parser.add_argument("--trained-on", default="unknown", help="for the metadata")
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
    spec = AVSpec()
    torch.manual_seed(options.seed)
    network: Any = LipMotionNetwork()
    if args.start is not None:
        network = load_lip_motion_network(args.start).model.requires_grad_(True)
    recordings, held_out = split_voices(_recordings(args, spec), options.held_out_every)
    state = None if args.state is None else args.state / "training.pt"
    student = distil_lip_prior(network, spec, recordings, options, state)
    r = opening_correlation_with_prior(student, spec, held_out)
    logging.info("%d other voices: r of the opening %.3f", len(held_out), r)
    meta = {LIP_MOTION: {}, "av": spec.to_dict(), "license": args.license}
    save_release(args.output, LIP_MOTION, student, {**meta, "trained_on": args.trained_on})
    if args.state is not None:
        write_json(args.state / "scores.json", {"num_voices": len(held_out), "r_with_prior": r})


def _recordings(args: argparse.Namespace, spec: AVSpec) -> list[Recording]:
    """Return the recordings, which are stored in the state's folder."""
    stored = None if args.state is None else args.state / "recordings.pt"
    if stored is not None and stored.is_file():
        return load_recordings(stored)
    prior = WhisperLipPrior(WhisperEncoder(num_threads=torch.get_num_threads()), args.map)
    recordings = read_recordings(spec, args.corpora, args.voices, prior)
    if stored is not None:
        save_recordings(stored, recordings)
    return recordings


if __name__ == "__main__":
    main()
