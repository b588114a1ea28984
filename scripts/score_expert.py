"""Measure how often a sync expert finds the true audio offset among eleven candidates.

python scripts/score_expert.py CORPUS

The candidates are shifts of a clip's own audio by -5 to +5 frames; a result within one frame of the
true offset counts as correct. Whole clips and all segments of 25 frames are scored, for training
speakers (split "val") and held-out speakers (split "test"). Intervals are 95 % bootstrap intervals
over clips.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from talkinghead.data.clip_file import ClipFeatureReader, ClipFile
from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.errors import CorpusError, TalkingHeadError
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.sync.embeddings import embed_clip, load_sync_expert
from talkinghead.sync.offset import distances_by_shift, measure_offset
from talkinghead.types import AVSpec, FloatArray

MAX_SHIFT = 5
TOLERANCE = 1
SEGMENT_FRAMES = 25


def clip_distances(expert: SyncDiscriminator, path: Path, spec: AVSpec) -> FloatArray:
    """Return the audio-video distances of a clip's windows at eleven shifts, float32 [N, 11]."""
    clip = ClipFile(path)
    features = ClipFeatureReader(spec, expert.audio_encoder.input_features).read(clip)
    mean_mouth = clip.tensor("mean_mouth")
    audio, video = embed_clip(expert, clip.faces, len(clip), mean_mouth, features, spec)
    return distances_by_shift(audio, video, MAX_SHIFT)


def hits_of(distances: FloatArray, num_windows: int) -> list[bool]:
    """Return, for each segment of windows, whether its offset is found within one frame."""
    starts = range(len(distances) - num_windows + 1)
    found = [measure_offset(distances[first : first + num_windows]).frames for first in starts]
    return [abs(frames) <= TOLERANCE for frames in found]


def describe(hits: Sequence[Sequence[bool]], seed: int = 0) -> str:
    """Return the fraction of hits over all clips with bootstrap interval and counts, as text."""
    right = np.array([sum(clip) for clip in hits])
    total = np.array([len(clip) for clip in hits])
    drawn = np.random.default_rng(seed).integers(len(hits), size=(2000, len(hits)))
    fractions = right[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    low, high = np.quantile(fractions, [0.025, 0.975])
    fraction = right.sum() / total.sum()
    return f"{fraction:.1%} ({low:.1%} to {high:.1%}), {right.sum()} of {total.sum()}"


def score(
    expert: SyncDiscriminator, corpus: Path, clips: Sequence[ClipEntry], spec: AVSpec
) -> tuple[str, str]:
    """Return the results for whole clips and for all segments of clips, as text."""
    needed = max(SEGMENT_FRAMES, expert.num_frames)
    clips = [clip for clip in clips if clip.num_frames >= needed]
    if not clips:
        return ("no clips",) * 2
    every = [clip_distances(expert, corpus / clip.path, spec) for clip in clips]
    whole = [hits_of(one, len(one)) for one in every]
    segments = [hits_of(one, needed - expert.num_frames + 1) for one in every]
    return f"{describe(whole)} clips", f"{describe(segments)} segments of {len(clips)} clips"


def main() -> None:
    """Print the results for seen and unseen speakers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--checkpoint", default="default", help="path of the sync expert")
    args = parser.parse_args()
    try:
        manifest = Manifest.load(args.corpus)
        expert = load_sync_expert(args.checkpoint, manifest.spec)
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
