"""Corpora of drawn faces with delayed audio."""

from __future__ import annotations

from pathlib import Path

from talkinghead.data.clip_file import STORED_FEATURES, read_clip_data, write_clip
from talkinghead.data.manifest import Manifest
from talkinghead.data.preparation.clip_maker import shift_clip
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.types import AVSpec

SPEC = AVSpec()


def make_late_corpus(folder: Path, num_frames: float, **options: int) -> Manifest:
    """Write a synthetic corpus whose audio is `num_frames` frames late."""
    manifest = make_synthetic_corpus(folder, SPEC, **options)
    for clip in manifest.clips:
        data = read_clip_data(folder / clip.path)
        data = shift_clip(data, data.audio, -num_frames, AudioFeatures(SPEC, STORED_FEATURES))
        write_clip(folder / clip.path, data, {"num_frames": str(len(data.jpegs))})
    return manifest
