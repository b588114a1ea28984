"""Tests of the preparation of one video."""

import os
from fractions import Fraction

import numpy as np
import pytest
from helpers.fixed_detector import FixedDetector

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.preparation.clip_maker import ClipMaker, ClipRules, ClipTask
from talkinghead.media.writer import VideoWriter
from talkinghead.types import AVSpec

SPEC = AVSpec()
TONE = 0.3 * np.sin(np.arange(64_000) * 0.2).astype(np.float32)


def write_video(path, num_frames=50, fps=Fraction(25), audio=TONE, dark=()):
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(90, 255, (16, 16, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    rate = None if audio is None else 16_000
    with VideoWriter(path, 160, 160, fps, rate, preset="ultrafast") as writer:
        for number in range(num_frames):
            image = np.roll(texture, 10 * number, axis=1)
            writer.write(np.zeros_like(image) if number in dark else image)
        if audio is not None:
            writer.write_audio(audio[: int(num_frames / fps * 16_000)])


def make(tmp_path, detector=None, rules=None, **video):
    source = tmp_path / "raw, 1.mp4"
    if video.pop("write", True):
        write_video(source, **video)
    maker = ClipMaker(detector or FixedDetector(), "fake", SPEC, rules or ClipRules())
    task = ClipTask(source, "a/raw", tmp_path / "out" / "clip.safetensors")
    return maker.run(task), task


def test_prepared_clip_has_all_tensors_and_its_crop_does_not_depend_on_the_mouth(tmp_path):
    result, task = make(tmp_path)
    assert (result.reason, result.num_frames, result.reused) == ("", 50, False)
    clip = ClipFile(task.clip_path)
    assert len(clip) == 50
    assert clip.mel().shape == (80, 161)
    assert clip.tensor("prosody").shape == (3, 161)
    assert len(clip.tensor("audio")) == 32_000
    for transform in clip.tensor("transforms"):
        np.testing.assert_allclose(transform, [[2, 0, 0], [0, 2, 0]], atol=1e-3)
    assert clip.faces(0, 2).shape == (2, 256, 256, 3)
    assert np.isfinite(clip.tensor("mouth_opening")).all()
    assert clip.tensor("head_pose").shape == (50, 3)
    # All landmarks move, except those that the alignment uses.
    _, task = make(tmp_path, FixedDetector(mouth=12.0), ClipRules(min_face_px=79.0), write=False)
    moving = ClipFile(task.clip_path)
    assert not np.allclose(clip.tensor("mouth_opening"), moving.tensor("mouth_opening"))
    for name in ("transforms", "jpeg", "head_pose"):
        np.testing.assert_array_equal(clip.tensor(name), moving.tensor(name))


@pytest.mark.parametrize(
    ("reason", "detector", "video"),
    [
        ("no audio", {}, {"audio": None}),
        ("no audio", {}, {"audio": 0 * TONE}),
        ("no face", {}, {"dark": range(50)}),
        ("face lost", {}, {"dark": range(20, 27)}),
        ("several faces", {"second": 120.0}, {}),
        ("too short", {}, {"num_frames": 20}),
        ("too small", {"size": 60.0}, {}),
    ],
)
def test_bad_video_is_skipped_with_its_reason(tmp_path, reason, detector, video):
    result, task = make(tmp_path, FixedDetector(**detector), **video)
    assert (result.reason, result.reused) == (reason, False)
    assert result.detail
    assert not task.clip_path.exists()
    again, _ = make(tmp_path, FixedDetector(**detector), write=False)
    assert (again.reason, again.detail, again.reused) == (reason, result.detail, True)


def test_few_lost_frames_are_marked_and_a_small_second_face_accepted(tmp_path):
    result, task = make(tmp_path, FixedDetector(second=60.0), dark=range(20, 24))
    assert result.reason == ""
    clip = ClipFile(task.clip_path)
    assert np.flatnonzero(np.isnan(clip.tensor("mouth_opening"))).tolist() == [20, 21, 22, 23]
    assert np.isnan(clip.tensor("head_pose")).any(1).sum() == 4
    assert np.isfinite(clip.tensor("transforms")).all()
    # Frames without a face are not part of the mean face.
    assert clip.tensor("mean_face").mean() > 120


def test_corrupt_file_is_skipped(tmp_path):
    source = tmp_path / "raw, 1.mp4"
    write_video(source)
    whole = source.read_bytes()
    for content in (b"this is not a video\n" * 100, whole[: len(whole) // 2]):
        source.write_bytes(content)
        result, _ = make(tmp_path, write=False)
        assert result.reason == "corrupt"
        assert "raw, 1.mp4" in result.detail


def test_file_that_cannot_be_read_is_skipped_until_it_can(tmp_path):
    source = tmp_path / "raw, 1.mp4"
    result, _ = make(tmp_path, write=False)
    assert (result.reason, result.detail) == ("unreadable", "No such file or directory")
    os.mkfifo(source)
    result, _ = make(tmp_path, write=False)
    assert (result.reason, result.detail) == ("unreadable", "it is not a regular file")
    source.unlink()
    result, _ = make(tmp_path)
    assert (result.reason, result.num_frames) == ("", 50)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), PermissionError(13, "denied")])
def test_file_that_is_removed_during_preparation_is_skipped(tmp_path, monkeypatch, error):
    def fail(self, source):
        raise error

    monkeypatch.setattr(ClipMaker, "_make", fail)
    result, task = make(tmp_path)
    assert (result.reason, result.detail) == ("unreadable", error.strerror)
    assert not task.clip_path.exists()


def test_clip_is_reused_until_file_rules_or_source_change(tmp_path):
    _, task = make(tmp_path)
    made, whole = task.clip_path.stat().st_mtime_ns, task.clip_path.read_bytes()
    assert make(tmp_path, write=False)[0].reused
    assert task.clip_path.stat().st_mtime_ns == made
    task.clip_path.write_bytes(whole[:-100])
    assert not make(tmp_path, write=False)[0].reused
    assert len(task.clip_path.read_bytes()) == len(whole)
    changed, _ = make(tmp_path, write=False, rules=ClipRules(min_face_px=81.0))
    assert not changed.reused
    other_source, _ = make(tmp_path, num_frames=40)
    assert not other_source.reused
    assert other_source.num_frames == 40
    # The clip of a source that became bad is deleted.
    assert make(tmp_path, audio=None)[0].reason == "no audio"
    assert not task.clip_path.exists()


def test_clip_is_on_the_frame_grid_and_ends_with_its_audio(tmp_path):
    result, task = make(tmp_path, num_frames=60, fps=Fraction(30000, 1001))
    assert result.num_frames == 50
    assert ClipFile(task.clip_path).mel().shape == (80, 161)
    result, _ = make(tmp_path, num_frames=75, audio=TONE[:32_000])
    assert 50 <= result.num_frames <= 53
