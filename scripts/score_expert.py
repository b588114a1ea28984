"""How well a sync expert finds the true sound among eleven: python scripts/score_expert.py CORPUS.

The candidates are the clip's own sound shifted by -5 to +5 frames; what counts is a pick within
one frame of the truth. Whole clips of speakers that were trained on (split "val"), and every
stretch of 25 frames of speakers that were not (split "test"); the intervals are 95 %, from drawing
the clips again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from talkinghead.data.clip_features import ClipFeatureReader
from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.errors import CorpusError, TalkingHeadError
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.sync.offset import (
    distances_by_shift,
    embed_clip,
    load_offset_expert,
    measure_offset,
)
from talkinghead.types import AVSpec, FloatArray

MAX_SHIFT = 5
TOLERANCE = 1
SEGMENT_FRAMES = 25


def clip_distances(expert: SyncDiscriminator, path: Path, spec: AVSpec) -> FloatArray:
    """A clip's windows against the eleven shifts, float32 [N, 11]."""
    clip = ClipFile(path)
    features = ClipFeatureReader(spec, expert.audio_encoder.input_features).read(clip)
    mean_mouth = clip.tensor("mean_mouth")
    heard, seen = embed_clip(expert, clip.faces, len(clip), mean_mouth, features, spec)
    return distances_by_shift(heard, seen, MAX_SHIFT)


def hits_of(distances: FloatArray, num_windows: int) -> list[bool]:
    """Whether each stretch of so many windows is placed within a frame of where it belongs."""
    starts = range(len(distances) - num_windows + 1)
    found = [measure_offset(distances[first : first + num_windows]).frames for first in starts]
    return [abs(frames) <= TOLERANCE for frames in found]


def describe(hits: Sequence[Sequence[bool]], seed: int = 0) -> str:
    """The share of hits over all clips, its bootstrap interval, and how many there are."""
    right = np.array([sum(clip) for clip in hits])
    total = np.array([len(clip) for clip in hits])
    drawn = np.random.default_rng(seed).integers(len(hits), size=(2000, len(hits)))
    shares = right[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    share = right.sum() / total.sum()
    return f"{share:.1%} ({low:.1%} to {high:.1%}), {right.sum()} of {total.sum()}"


def score(
    expert: SyncDiscriminator, corpus: Path, clips: Sequence[ClipEntry], spec: AVSpec
) -> tuple[str, str]:
    """Two lines: the share over whole clips, and over all their segments."""
    needed = max(SEGMENT_FRAMES, expert.num_frames)
    clips = [clip for clip in clips if clip.num_frames >= needed]
    if not clips:
        return ("no clips",) * 2
    every = [clip_distances(expert, corpus / clip.path, spec) for clip in clips]
    whole = [hits_of(one, len(one)) for one in every]
    segments = [hits_of(one, needed - expert.num_frames + 1) for one in every]
    return f"{describe(whole)} clips", f"{describe(segments)} segments of {len(clips)} clips"


def main() -> None:
    """Prints both figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--checkpoint", default="default", help="the expert's; default: packaged")
    args = parser.parse_args()
    try:
        manifest = Manifest.load(args.corpus)
        expert = load_offset_expert(args.checkpoint, manifest.spec)
        trained = {clip.speaker for clip in manifest.split("train")}
        seen = [clip for clip in manifest.split("val") if clip.speaker in trained]
        unseen = [clip for clip in manifest.split("test") if clip.speaker not in trained]
        if not seen and not unseen:
            raise CorpusError(
                f"{args.corpus} holds out no clips: prepare it with val_fraction and "
                "holdout_speakers"
            )
        for name, clips in (("seen", seen), ("unseen", unseen)):
            whole, segments = score(expert, args.corpus, clips, manifest.spec)
            print(f"{name} speakers, whole clips: {whole}")
            print(f"{name} speakers, {SEGMENT_FRAMES}-frame segments: {segments}")
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
