"""Tests of offsets and sync embeddings, with a small expert that is trained on drawn faces."""

from __future__ import annotations

import os
import runpy
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.manifest import Manifest
from talkinghead.data.preparation.clip_maker import ClipMaker, ClipRules, ClipTask
from talkinghead.data.synthetic_clips import Character, draw_face, make_synthetic_corpus, speak
from talkinghead.data.window_sampling import make_rng
from talkinghead.errors import CheckpointError, UsageError
from talkinghead.features.audio_features import AudioFeatures, mel_windows
from talkinghead.features.faces.alignment import (
    RIGID_POINTS,
    as_tensor,
    canonical_points,
    mouth_crop,
)
from talkinghead.media.writer import VideoWriter
from talkinghead.models.checkpoint import EXPERT, GENERATOR, save_release
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.sync.embeddings import embed_clip, embed_windows, load_sync_expert
from talkinghead.sync.offset import (
    SyncRules,
    distances_by_shift,
    find_offset,
    lip_offset,
    measure_offset,
    shift_audio,
)
from talkinghead.training.modules.sync_expert_module import SyncExpertModule
from talkinghead.training.training_run import build_trainer, train
from talkinghead.types import AVSpec, Box, Face

SPEC = AVSpec(face_size=160, mouth_size=48, mouth_x=40, mouth_y=72, mouth_side=80)
SIZE = SPEC.face_size
SHIFTS = [shift for shift in range(-5, 6) if shift]
ARGUMENTS = {
    "dim": 32,
    "image_size": 32,
    "image_channels": [8, 16, 16],
    "audio_channels": [8, 8, 16, 16],
    "audio_dim": 16,
}
TRAINER = {
    "accelerator": "cpu",
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 0,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(path, SPEC, num_speakers=2, clips_per_speaker=5, seconds=3.0)
    return path


@pytest.fixture(scope="module")
def expert(corpus, tmp_path_factory):
    """Train an expert for some seconds and return its file."""
    torch.manual_seed(0)
    optimizer = {"lr": 5e-3, "warmup_iterations": 5}
    module = SyncExpertModule(SPEC, ARGUMENTS, optimizer, max_iterations=70)
    data = LipSyncDataModule(
        corpus, SPEC, batch_size=8, num_workers=0, num_frames=10, **module.window
    )
    train(module, data, build_trainer(TRAINER, [], []))
    path = tmp_path_factory.mktemp("expert") / "expert.safetensors"
    meta = {EXPERT: ARGUMENTS, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "drawn faces"}
    save_release(path, EXPERT, module.sync_expert, meta)
    return path


def late(samples, frames):
    """Delay samples by a number of frames, without a change of length; negative to advance."""
    num = frames * 640
    padded = np.pad(samples, (max(0, num), max(0, -num)))
    return padded[max(0, -num) :][: len(samples)]


def offset_of(clip, network, spec, frames=0):
    samples = late(clip.tensor("audio").astype(np.float32) / 32767, frames)
    mel = AudioFeatures(spec)(torch.from_numpy(samples))
    mean = clip.tensor("mean_mouth")
    return find_offset(*embed_clip(network, clip.faces, len(clip), mean, mel, spec), 15)


def test_offsets_of_drawn_clips_are_found(corpus, expert):
    network = load_sync_expert(expert, SPEC)
    for entry, shifts in zip(Manifest.load(corpus).split("val"), (SHIFTS, ()), strict=True):
        clip = ClipFile(corpus / entry.path)
        own = offset_of(clip, network, SPEC)
        assert abs(own.frames) <= 1
        assert own.confidence > 0.25
        found = [offset_of(clip, network, SPEC, shift).frames for shift in shifts]
        assert found == [own.frames + shift for shift in shifts]


def test_clips_in_memory_have_the_same_embeddings(corpus, expert):
    network = load_sync_expert(expert, SPEC)
    clip = ClipFile(corpus / Manifest.load(corpus).clips[0].path)
    features, mean = torch.from_numpy(clip.mel()), clip.tensor("mean_mouth")
    expected = embed_clip(network, clip.faces, len(clip), mean, features, SPEC)
    mouths = mouth_crop(as_tensor(clip.faces(0, len(clip))), SPEC)
    windows = mel_windows(features, range(len(clip)), SPEC.fps, SPEC)
    audio, video = embed_windows(network, mouths, windows)
    assert audio.shape == video.shape == (len(clip) - network.num_frames + 1, ARGUMENTS["dim"])
    np.testing.assert_allclose(audio, expected[0], atol=1e-5)
    # The mean mouth of a clip file is rounded.
    np.testing.assert_allclose(video, expected[1], atol=0.01)


def test_script_scores_an_expert(corpus, expert, tmp_path, monkeypatch, capsys):
    script = str(Path(__file__).parents[3] / "scripts" / "score_expert.py")
    monkeypatch.setattr(sys, "argv", [script, str(corpus), "--checkpoint", str(expert)])
    runpy.run_path(script, run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "seen speakers, whole clips: 100.0% (100.0% to 100.0%), 2 of 2 clips"
    # 51 segments of 25 frames in each of two clips of 75.
    assert lines[1].endswith("of 102 segments of 2 clips")
    assert lines[2:] == [
        "unseen speakers, whole clips: no clips",
        "unseen speakers, 25-frame segments: no clips",
    ]
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path)])
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
    assert "is not a prepared corpus" in capsys.readouterr().err


@pytest.mark.corpus
def test_offsets_of_real_clips_are_found():
    corpus = Path(os.environ["TALKINGHEAD_CORPUS"])
    manifest = Manifest.load(corpus)
    network = load_sync_expert("default", manifest.spec)
    for entry in [*manifest.split("val")[:3], *manifest.split("test")[:3]]:
        clip = ClipFile(corpus / entry.path)
        own = offset_of(clip, network, manifest.spec)
        assert abs(own.frames) <= 1
        assert own.confidence > SyncRules().min_confidence
        found = [offset_of(clip, network, manifest.spec, shift).frames for shift in SHIFTS]
        assert found == [own.frames + shift for shift in SHIFTS]


class DrawnDetector:
    """Returns the points of a drawn face, which fills the image."""

    topology = "mesh468"

    def detect(self, image):
        points = np.full((468, 2), SIZE / 2, np.float32)
        rigid = list(RIGID_POINTS["mesh468"])
        points[rigid] = canonical_points("mesh468", SPEC)
        points[14] += np.float32([0.0, 5.0])
        return [Face(Box(0, 0, SIZE, SIZE), points, 0.9, "mesh468")]

    def track(self, image, previous):
        return self.detect(image)[0]


def write_video(path, frames_late=0, seed=100, audio_seed=None, seconds=3):
    """Write a drawn speaker; with an `audio_seed` the audio is that of other syllables."""
    character = Character.of(0)
    samples, opening = speak(character, Fraction(seconds), 16_000, make_rng(seed, 1, 0))
    if audio_seed is not None:
        samples, _ = speak(character, Fraction(seconds), 16_000, make_rng(audio_seed, 1, 0))
    with VideoWriter(path, SIZE, SIZE, Fraction(25), 16_000) as writer:
        for value in opening[320::640]:
            writer.write(draw_face(character, float(value), SIZE))
        writer.write_audio(np.ascontiguousarray(late(samples, frames_late)))


def make(tmp_path, expert, sync=None, write=True, **video):
    source = tmp_path / "raw.mp4"
    if write:
        write_video(source, **video)
    sync = SyncRules(str(expert), **(sync or {})) if expert else None
    maker = ClipMaker(DrawnDetector(), "drawn", SPEC, ClipRules(), sync)
    task = ClipTask(source, "a/raw", tmp_path / "clip.safetensors")
    return maker.run(task), task


@pytest.mark.parametrize("shift", [3, -4])
def test_prepare_corrects_the_offset(tmp_path, expert, shift):
    network = load_sync_expert(expert, SPEC)
    result, task = make(tmp_path, expert, frames_late=shift)
    assert result.reason == ""
    assert abs(result.offset.frames - shift) <= 1
    clip = ClipFile(task.clip_path)
    assert len(clip) == result.num_frames == 75 - abs(result.offset.frames)
    assert len(clip.tensor("audio")) == 640 * len(clip)
    assert clip.mel().shape[1] == clip.tensor("prosody").shape[1] == len(clip) * 640 // 200 + 1
    for name in ("mouth_opening", "lips", "transforms"):
        assert len(clip.tensor(name)) == len(clip)
    assert abs(offset_of(clip, network, SPEC).frames) <= 1
    # The frames that still have audio are kept.
    uncorrected, raw = make(tmp_path, expert, {"correct": False}, write=False)
    assert (uncorrected.offset, uncorrected.num_frames) == (result.offset, 75)
    first = max(0, -result.offset.frames)
    whole = ClipFile(raw.clip_path).faces(first, first + 1)
    make(tmp_path, expert, write=False)
    np.testing.assert_array_equal(ClipFile(task.clip_path).faces(0, 1), whole)


def test_videos_out_of_sync_or_of_low_confidence_are_skipped(tmp_path, expert):
    result, task = make(tmp_path, expert, {"max_offset_frames": 3}, frames_late=6)
    assert result.reason == "out of sync"
    assert "its offset is +" in result.detail
    assert "at most 3 are allowed" in result.detail
    assert not task.clip_path.exists()
    own, _ = make(tmp_path, expert)
    needed = {"min_confidence": round(0.9 * own.offset.confidence, 2)}
    assert make(tmp_path, expert, needed, write=False)[0].reason == ""
    result, _ = make(tmp_path, expert, needed, audio_seed=7)
    assert result.reason == "low confidence"
    assert f"{needed['min_confidence']} is needed" in result.detail
    assert make(tmp_path, expert, needed, write=False)[0].reused


def test_clip_is_prepared_again_with_other_sync_settings(tmp_path, expert):
    plain, _ = make(tmp_path, None)
    assert plain.offset is None
    measured, _ = make(tmp_path, expert, write=False)
    assert not measured.reused
    again, _ = make(tmp_path, expert, write=False)
    assert again.reused
    assert again.offset == measured.offset
    for sync in ({"correct": False}, {"max_offset_frames": 9}, {"min_confidence": 0.1}):
        assert not make(tmp_path, expert, sync, write=False)[0].reused
    # Experts are compared by content, not by name.
    other = tmp_path / "expert.safetensors"
    for seed in (0, 1):
        torch.manual_seed(seed)
        meta = {EXPERT: ARGUMENTS, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "nothing"}
        save_release(other, EXPERT, SyncDiscriminator(**ARGUMENTS), meta)
        assert not make(tmp_path, other, {"min_confidence": 0.0}, write=False)[0].reused


def test_clip_that_is_too_short_after_correction_is_skipped(tmp_path, expert):
    length = Fraction(26, 25)
    sure = {"min_confidence": 0.0}
    assert make(tmp_path, expert, {**sure, "correct": False}, seconds=length)[0].reason == ""
    result, _ = make(tmp_path, expert, sure, frames_late=4, seconds=length)
    assert result.reason == "too short"
    assert "1.0 s are needed" in result.detail


def test_unusable_experts_are_refused(tmp_path, expert):
    with pytest.raises(
        CheckpointError, match=r"gone\.ckpt does not exist.*experiment=sync_expert`"
    ):
        load_sync_expert(tmp_path / "gone.ckpt", SPEC)
    meta = {GENERATOR: {}, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "nothing"}
    save_release(tmp_path / "gen.safetensors", GENERATOR, torch.nn.Linear(1, 1), meta)
    with pytest.raises(
        CheckpointError, match=r"no sync expert: .*no sync_expert.*; give a checkpoint"
    ):
        load_sync_expert(tmp_path / "gen.safetensors", SPEC)
    with pytest.raises(CheckpointError, match=r"another AVSpec \(.*face_size: 160 != 256"):
        load_sync_expert(expert, AVSpec())


@pytest.mark.parametrize(
    "rules", [{"max_offset_frames": -1}, {"max_offset_frames": 2.5}, {"min_confidence": 3.0}]
)
def test_invalid_rules_are_refused(rules):
    with pytest.raises(UsageError, match="it must"):
        SyncRules(**rules)


@pytest.mark.parametrize("shift", [-3, 0, 5])
def test_offset_is_the_shift_with_the_smallest_distance(shift):
    """The video embeddings repeat the audio embeddings of `shift` frames before."""
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
    # Audio that continues after the video covers all of its frames.
    assert shift_audio(samples, 15, 3, SPEC)[0] == slice(0, 15)


def test_lip_offset_of_a_shifted_clip(corpus):
    entry = Manifest.load(corpus).split("train")[0]
    clip = ClipFile(corpus / entry.path)
    opening, mel = clip.tensor("mouth_opening"), clip.mel()
    assert lip_offset(opening, mel, SPEC) == 0
    assert lip_offset(opening, np.roll(mel, 16, axis=1), SPEC) == 5
    lost = opening.copy()
    lost[20:24] = np.nan
    assert lip_offset(lost, mel, SPEC) == 0
    assert lip_offset(opening, np.full_like(mel, -4.0), SPEC) is None
    assert lip_offset(np.full_like(opening, np.nan), mel, SPEC) is None
