"""Measurement and correction of the offsets of prepared clips by a lip prior."""

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from helpers.late_clips import SPEC, make_late_corpus
from helpers.lip_priors import LoudnessLipPrior

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.data.preparation.clip_maker import ClipResult, ClipTask
from talkinghead.data.preparation.lip_offsets import UNDETERMINED, apply_lip_offsets
from talkinghead.predict.audio.lip_priors.lip_prior import predict_lip_motion
from talkinghead.sync.lip_offset import LipOffsetRules

RULES = LipOffsetRules(pooled_below_s=1.0)
PREDICT = partial(predict_lip_motion, LoudnessLipPrior(), spec=SPEC)


@pytest.fixture(scope="module")
def late_corpus(tmp_path_factory):
    """Return the folder of two clips whose audio is 3.5 frames late."""
    folder = tmp_path_factory.mktemp("late")
    make_late_corpus(folder, 3.5, num_speakers=1, clips_per_speaker=2, seconds=5)
    return folder


@pytest.fixture
def late(late_corpus, tmp_path):
    """Return the results of copies of the late clips."""
    folder = shutil.copytree(late_corpus, tmp_path / "corpus")
    return [
        ClipResult(ClipTask(folder, clip.id, folder / clip.path, speaker="anna"), "0", 121)
        for clip in Manifest.load(folder).clips
    ]


def test_late_audio_is_shifted_once(late):
    first = apply_lip_offsets(late, SPEC, RULES, PREDICT)
    for result in first:
        clip = ClipFile(result.task.clip_path)
        assert result.offset.frames == pytest.approx(3.5, abs=0.5)
        assert len(clip) == result.num_frames == 121 - 3
        assert len(clip.tensor("audio")) == 640 * len(clip)
    again = apply_lip_offsets(first, SPEC, RULES, PREDICT)
    for before, after in zip(first, again, strict=True):
        assert after.num_frames == before.num_frames
        assert after.offset.frames == pytest.approx(before.offset.frames, abs=0.25)


def test_common_offset_of_added_clips_does_not_shift_earlier_clips_again(late):
    pooled = LipOffsetRules(pooled_below_s=60.0)
    (first,) = apply_lip_offsets(late[:1], SPEC, pooled, PREDICT)
    again = apply_lip_offsets([first, late[1]], SPEC, pooled, PREDICT)
    for result in again:
        assert result.offset.frames == pytest.approx(3.5, abs=0.5)
        assert result.num_frames == len(ClipFile(result.task.clip_path)) == 121 - 3


def test_clips_that_the_shift_makes_too_short_are_dropped(late):
    for result in apply_lip_offsets(late, SPEC, RULES, PREDICT, min_duration_s=4.75):
        assert (result.reason, len(ClipFile(result.task.clip_path))) == ("too short", 121)
        assert result.detail == "4.72 s without its offset, 4.75 s are needed"


def test_correction_can_be_turned_off(late):
    rules = replace(RULES, correct=False)
    results = apply_lip_offsets(late, SPEC, rules, PREDICT)
    assert [result.num_frames for result in results] == [121, 121]
    assert results[0].offset.frames == pytest.approx(3.5, abs=0.5)


def test_clips_out_of_sync_are_skipped(late):
    results = apply_lip_offsets(late, SPEC, replace(RULES, max_offset_frames=2), PREDICT)
    assert all(result.reason for result in results)


@pytest.mark.parametrize(("choice", "reason"), [("keep", ""), ("drop", UNDETERMINED)])
def test_clips_without_reliable_offset_are_kept_or_dropped(late, choice, reason):
    rng = np.random.default_rng(0)

    def predict_noise(samples):
        return rng.normal(size=(len(samples) // 640, 20, 2)).astype(np.float32)

    rules = replace(RULES, undetermined=choice)
    for result in apply_lip_offsets(late, SPEC, rules, predict_noise):
        assert (result.reason, result.offset) == (reason, None)
