"""What perfect hearing would bring: python scripts/bound_hearing.py CORPUS.

How far the pixels around the lips are off with another clip's sound, over how far with the clip's
own: as the generator hears both, and told how both clips' real lips moved. What the second ratio
leaves is the picture's doing (light, teeth, a head that turns), and no ear's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.errors import TalkingHeadError
from talkinghead.evaluation import metrics
from talkinghead.evaluation.checkpoint_evaluation import choose_clips, choose_other
from talkinghead.evaluation.clip_generation import ClipGenerator, real_mouths
from talkinghead.evaluation.clip_scores import load_clip
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.models.checkpoint import load_generator
from talkinghead.models.lipsync.decoder import lip_mask_prior
from talkinghead.models.lipsync.generator import LipSyncGenerator


def real_motion(corpus: Path, clip: ClipEntry, num_frames: int) -> Tensor:
    """How a clip's lips moved, float32 [num_frames, 20, 2]; NaN, for not known, after its end."""
    known = torch.from_numpy(lip_motion(ClipFile(corpus / clip.path).tensor("lips")))[:num_frames]
    motion = torch.full((num_frames, 20, 2), torch.nan)
    motion[: len(known)] = known
    return motion


def errors(generator: ClipGenerator, corpus: Path, own: ClipEntry, other: ClipEntry) -> Tensor:
    """L1 around the lips of a clip, float [heard or told, own or other sound]."""
    clip = load_clip(corpus, own)
    real = real_mouths(clip.faces, generator.spec)
    encoded = generator.encode(clip.faces, clip.lips)
    rows = torch.empty(2, 2)
    for column, entry in enumerate((own, other)):
        features = load_clip(corpus, entry).features
        for row, told in enumerate((None, real_motion(corpus, entry, len(real)))):
            mouths = generator.speak(encoded, features, told=told).mouths
            rows[row, column] = metrics.l1(mouths, real, lip_mask_prior(mouths.shape[-1]))
    return rows


def describe(found: Tensor) -> str:
    """Of errors [clips, 2, 2]: their means, and the ratios' means with 95 % intervals."""
    parts = []
    for row, name in enumerate(("heard", "told")):
        own, other = found[:, row].unbind(1)
        ratio = metrics.bootstrap_interval((other / own).numpy())
        parts.append(
            f"{name} {float(own.mean()):.4f} and {float(other.mean()):.4f}, "
            f"ratio {ratio.mean:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        )
    return "; ".join(parts)


@torch.inference_mode()
def bound(corpus: Path, checkpoint: str, max_clips: int | None) -> None:
    """Prints a line for the seen and one for the unseen speakers' clips."""
    manifest, loaded = Manifest.load(corpus), load_generator(checkpoint)
    generator = ClipGenerator(cast(LipSyncGenerator, loaded.model), loaded.spec)
    trained = {clip.speaker for clip in manifest.split("train")}
    seen = [clip for clip in manifest.split("val") if clip.speaker in trained]
    unseen = [clip for clip in manifest.split("test") if clip.speaker not in trained]
    for name, held_out in (("seen", seen), ("unseen", unseen)):
        clips = choose_clips(held_out, max_clips)
        pairs = [(clip, other) for clip in clips if (other := choose_other(clip, manifest))]
        if not pairs:
            print(f"{name} speakers: no clips")
            continue
        found = torch.stack([errors(generator, corpus, *pair) for pair in pairs])
        print(f"{name} speakers, {len(pairs)} clips, own and other: {describe(found)}", flush=True)


def main() -> None:
    """Reads the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="a prepared corpus")
    parser.add_argument("--checkpoint", default="default", help="a generator's file")
    parser.add_argument("--max-clips", type=int, help="so many of each split at most")
    arguments = parser.parse_args()
    try:
        bound(arguments.corpus, arguments.checkpoint, arguments.max_clips)
    except TalkingHeadError as error:
        parser.exit(1, f"bound_hearing: {error}\n")


if __name__ == "__main__":
    main()
