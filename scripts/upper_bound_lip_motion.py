"""Measure the upper bound of audio dependence, with the ground-truth lip motion.

python scripts/upper_bound_lip_motion.py CORPUS

For each clip, the script divides the L1 around the lips with another clip's audio by the L1 with
the clip's own audio: once with the lip motion that the generator predicts, and once with the true
lip motion of both clips. A perfect audio encoder would reach the second ratio.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.errors import TalkingHeadError
from talkinghead.evaluation import metrics
from talkinghead.evaluation.checkpoint_evaluation import choose_clips, choose_other_clip
from talkinghead.evaluation.clip_generation import ClipGenerator, real_mouths
from talkinghead.evaluation.clip_scores import load_clip
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.models.checkpoint import load_generator
from talkinghead.models.lipsync.generator import LipSyncGenerator
from talkinghead.models.lipsync.mouth_painting import lip_mask_prior
from talkinghead.predict.options import PredictOptions
from talkinghead.types import AVSpec, FloatArray


class GivenLipMotion:
    """A lip prior that returns given lip motion float32 [T, 20, 2] for any audio."""

    past_s = ahead_s = Fraction(0)
    blend_weight = 1.0

    def __init__(self, motion: FloatArray, spec: AVSpec) -> None:
        self.sample_rate, self.fps = spec.sample_rate, spec.fps
        self.block_s = len(motion) / spec.fps
        self.motion = motion

    def predict_motion(self, windows: FloatArray, first_frame: int) -> FloatArray:
        """Return the given motion for each window."""
        return np.repeat(self.motion[None], len(windows), axis=0)


def real_motion(corpus: Path, clip: ClipEntry, num_frames: int) -> FloatArray:
    """Return the lip motion of a clip, float32 [num_frames, 20, 2]; NaN after the end."""
    known = lip_motion(ClipFile(corpus / clip.path).tensor("lips"))[:num_frames]
    return np.pad(
        known.astype(np.float32),
        ((0, num_frames - len(known)), (0, 0), (0, 0)),
        constant_values=np.nan,
    )


def lip_errors(generator: ClipGenerator, corpus: Path, own: ClipEntry, other: ClipEntry) -> Tensor:
    """Return the L1 around the lips [2, 2]: predicted and true motion, own and other audio."""
    model, spec = generator.model, generator.spec
    clip = load_clip(corpus, own, spec, model.input_features)
    real = real_mouths(clip.faces, spec)
    encoded = generator.encode(clip.faces, clip.lips)
    rows = torch.empty(2, 2)
    for column, entry in enumerate((own, other)):
        audio = load_clip(corpus, entry, spec, model.input_features).audio
        given = GivenLipMotion(real_motion(corpus, entry, len(real)), spec)
        options = PredictOptions(articulation=1.0, lip_prior=given)
        for row, source in enumerate((generator, ClipGenerator(model, spec, options=options))):
            mouths = source.generate(encoded, audio).mouths
            rows[row, column] = metrics.l1(mouths, real, lip_mask_prior(mouths.shape[-1]))
    return rows


def describe(found: Tensor) -> str:
    """Return the means of errors [clips, 2, 2], and mean ratios with 95 % intervals, as text."""
    parts = []
    for row, name in enumerate(("predicted", "true")):
        own, other = found[:, row].unbind(1)
        ratio = metrics.bootstrap_interval((other / own).numpy())
        parts.append(
            f"{name} motion {float(own.mean()):.4f} and {float(other.mean()):.4f}, "
            f"ratio {ratio.mean:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        )
    return "; ".join(parts)


def print_bounds(corpus: Path, checkpoint: str, max_clips: int | None) -> None:
    """Print one line for the clips of seen speakers and one line for unseen speakers."""
    manifest, loaded = Manifest.load(corpus), load_generator(checkpoint)
    generator = ClipGenerator(cast(LipSyncGenerator, loaded.model), loaded.spec)
    trained = {clip.speaker for clip in manifest.split("train")}
    seen = [clip for clip in manifest.split("val") if clip.speaker in trained]
    unseen = [clip for clip in manifest.split("test") if clip.speaker not in trained]
    for name, held_out in (("seen", seen), ("unseen", unseen)):
        clips = choose_clips(held_out, max_clips)
        pairs = [(clip, other) for clip in clips if (other := choose_other_clip(clip, manifest))]
        if not pairs:
            print(f"{name} speakers: no clips")
            continue
        found = torch.stack([lip_errors(generator, corpus, *pair) for pair in pairs])
        print(f"{name} speakers, {len(pairs)} clips, own and other: {describe(found)}", flush=True)


def main() -> None:
    """Read the command line and print the bounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="a prepared corpus")
    parser.add_argument("--checkpoint", default="default", help="the generator's file")
    parser.add_argument("--max-clips", type=int, help="number of clips per split (default: all)")
    arguments = parser.parse_args()
    try:
        print_bounds(arguments.corpus, arguments.checkpoint, arguments.max_clips)
    except TalkingHeadError as error:
        parser.exit(1, f"upper_bound_lip_motion: {error}\n")


if __name__ == "__main__":
    main()
