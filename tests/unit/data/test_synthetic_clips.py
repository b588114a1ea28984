"""Tests of drawn faces."""

from fractions import Fraction

import numpy as np
import pytest

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import (
    Character,
    draw_face,
    make_synthetic_corpus,
    write_synthetic_clip,
)
from talkinghead.errors import UsageError
from talkinghead.media.reader import probe, read_audio, read_video
from talkinghead.types import AVSpec

SPEC = AVSpec()


def test_corpus_has_splits_and_mouths_that_follow_the_audio(corpus):
    manifest = Manifest.load(corpus)
    splits = sorted(clip.split for clip in manifest.clips)
    assert splits == ["test"] * 2 + ["train"] * 4 + ["val"] * 2
    for entry in manifest.clips:
        clip = ClipFile(corpus / entry.path)
        assert len(clip) == entry.num_frames == 50
        assert clip.mel().shape == (80, 161)
        assert clip.tensor("mean_mouth").shape == (3, 96, 96)
        middles = np.round((np.arange(len(clip)) + 0.5) * 3.2).astype(int)
        level = clip.mel().mean(axis=0)[middles]
        assert np.corrcoef(level, clip.tensor("mouth_opening"))[0, 1] > 0.7


def test_corpus_depends_on_the_seed_only_and_the_opening_changes_the_mouth_only(tmp_path):
    closed, wide = (draw_face(Character.of(0), value, 256).astype(int) for value in (0, 1))
    np.testing.assert_array_equal(closed[:100], wide[:100])
    assert (closed != wide)[170:200, 120:136].any()
    corpora = [
        make_synthetic_corpus(tmp_path / str(number), SPEC, 1, 2, 0.4, seed=seed).clips
        for number, seed in enumerate((0, 0, 1))
    ]
    assert corpora[0] == corpora[1] != corpora[2]
    with pytest.raises(UsageError, match="clips_per_speaker=1"):
        make_synthetic_corpus(tmp_path, SPEC, clips_per_speaker=1)


def test_raw_clip_is_a_video_with_or_without_audio(tmp_path):
    path, fps = tmp_path / "raw.mp4", Fraction(30000, 1001)
    write_synthetic_clip(path, 1.0, width=160, height=128, fps=fps)
    info = probe(path)
    assert (info.width, info.height, info.fps) == (160, 128, fps)
    assert len(list(read_video(path))) == round(fps)
    audio = read_audio(path, 16_000)
    assert float(audio.duration_s) == pytest.approx(1.0, abs=0.1)
    assert np.abs(audio.samples).max() > 0.02
    write_synthetic_clip(path, 0.2, sample_rate=None)
    assert not probe(path).has_audio
