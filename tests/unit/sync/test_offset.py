"""Tests of audio-video offsets."""

import numpy as np
import pytest

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.errors import UsageError
from talkinghead.sync.offset import (
    SyncRules,
    distances_by_shift,
    find_offset,
    lip_offset,
    measure_offset,
    shift_audio,
)
from talkinghead.types import AVSpec

SPEC = AVSpec()


@pytest.mark.parametrize(
    "rules", [{"max_offset_frames": -1}, {"max_offset_frames": 2.5}, {"min_confidence": 3.0}]
)
def test_invalid_rules_are_refused(rules):
    with pytest.raises(UsageError, match="expected a"):
        SyncRules(**rules)


@pytest.mark.parametrize("shift", [-3, 5])
def test_offset_is_the_shift_with_the_smallest_distance(shift):
    """Use the audio embeddings of `shift` frames earlier as video embeddings."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    audio, video = vectors[10:50], vectors[10 + shift : 50 + shift]
    offset = find_offset(audio, video, 8)
    assert offset.frames == shift
    assert offset.confidence == pytest.approx(np.sqrt(2), abs=0.1)
    distances = distances_by_shift(audio, video, 8)
    assert np.isnan(distances[:, 0]).sum() == 8
    assert measure_offset(distances[8:30]).frames == shift


def test_frames_without_audio_are_dropped():
    samples = np.arange(20 * 640, dtype=np.float32)
    kept, shifted = shift_audio(samples, 20, 3, SPEC)
    assert (kept, shifted[0]) == (slice(0, 17), 3 * 640)
    kept, shifted = shift_audio(samples, 20, -3, SPEC)
    assert (kept, shifted[0]) == (slice(3, 20), 0)
    # If the audio is longer than the video, all frames are kept.
    assert shift_audio(samples, 15, 3, SPEC)[0] == slice(0, 15)


def test_lip_offset_of_a_shifted_clip(tmp_path):
    entry = make_synthetic_corpus(tmp_path, SPEC, 1, 2).clips[0]
    clip = ClipFile(tmp_path / entry.path)
    opening, mel = clip.tensor("mouth_opening"), clip.mel()
    assert lip_offset(opening, mel, SPEC) == 0
    assert lip_offset(opening, np.roll(mel, 16, axis=1), SPEC) == 5
    lost = opening.copy()
    lost[20:24] = np.nan
    assert lip_offset(lost, mel, SPEC) == 0
    assert lip_offset(opening, np.full_like(mel, -4.0), SPEC) is None
    assert lip_offset(np.full_like(opening, np.nan), mel, SPEC) is None
