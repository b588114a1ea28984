"""Tests of sync embeddings with a small expert that is trained on drawn faces."""

import os
import runpy
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.fixed_detector import FixedDetector
from helpers.tiny_training import EXPERT as SMALL_EXPERT
from helpers.tiny_training import SPEC, fit, make_data

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.data.preparation.clip_maker import ClipMaker, ClipRules, ClipTask
from talkinghead.data.synthetic_clips import Character, draw_face, make_synthetic_corpus, speak
from talkinghead.data.window_sampling import make_rng
from talkinghead.errors import CheckpointError
from talkinghead.features.audio_features import AudioFeatures, mel_windows
from talkinghead.features.faces.alignment import as_tensor, mouth_crop
from talkinghead.media.writer import VideoWriter
from talkinghead.models.checkpoint import EXPERT, GENERATOR, save_release
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.sync.embeddings import embed_clip, embed_windows, load_sync_expert
from talkinghead.sync.offset import SyncRules, find_offset
from talkinghead.training.modules.sync_expert_module import SyncExpertModule
from talkinghead.types import AVSpec

SIZE = SPEC.face_size
CHANNELS = {"image_channels": [8, 16, 16], "audio_channels": [8, 8, 16, 16]}
ARGUMENTS = SMALL_EXPERT | CHANNELS | {"dim": 32}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(path, SPEC, num_speakers=2, clips_per_speaker=5, seconds=3.0)
    return path


@pytest.fixture(scope="module")
def expert(corpus, tmp_path_factory):
    """Train a sync expert for a few seconds, and return its checkpoint."""
    torch.manual_seed(0)
    optimizer = {"lr": 5e-3, "warmup_iterations": 5}
    module = SyncExpertModule(SPEC, ARGUMENTS, optimizer, max_iterations=70)
    options = {"batch_size": 8, "num_frames": 10, "iterations_per_epoch": 100}
    fit(module, make_data(corpus, module, augmentation=None, **options))
    return save(tmp_path_factory.mktemp("expert"), EXPERT, module.sync_expert, ARGUMENTS)


def save(folder, kind, network, arguments):
    meta = {kind: arguments, "av": SPEC.to_dict(), "license": "MIT", "trained_on": "drawn faces"}
    save_release(folder / "network.safetensors", kind, network, meta)
    return folder / "network.safetensors"


def late(samples, frames):
    """Delay samples by a number of frames (advance if negative) without changing their number."""
    num = frames * 640
    padded = np.pad(samples, (max(0, num), max(0, -num)))
    return padded[max(0, -num) :][: len(samples)]


def offset_of(clip, network, spec, frames=0):
    samples = late(clip.tensor("audio").astype(np.float32) / 32767, frames)
    mel = AudioFeatures(spec)(torch.from_numpy(samples))
    mean = clip.tensor("mean_mouth")
    return find_offset(*embed_clip(network, clip.faces, len(clip), mean, mel, spec), 15)


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.corpus)])
def test_shifts_of_the_audio_are_measured(request, real):
    corpus = Path(os.environ["TALKINGHEAD_CORPUS"] if real else request.getfixturevalue("corpus"))
    manifest = Manifest.load(corpus)
    path = "default" if real else request.getfixturevalue("expert")
    network = load_sync_expert(path, manifest.spec)
    for entry in [*manifest.split("val")[:1], *manifest.split("test")[:1]]:
        clip = ClipFile(corpus / entry.path)
        own = offset_of(clip, network, manifest.spec)
        assert abs(own.frames) <= 1
        assert own.confidence > SyncRules().min_confidence
        for shift in (-5, -2, 1, 4):
            found = offset_of(clip, network, manifest.spec, shift)
            assert found.frames == own.frames + shift


@pytest.mark.slow
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
    # The mean mouth in a clip file is rounded, so the embeddings differ slightly.
    np.testing.assert_allclose(video, expected[1], atol=0.01)


@pytest.mark.slow
def test_script_scores_an_expert(corpus, expert, tmp_path, monkeypatch, capsys):
    script = str(Path(__file__).parents[3] / "scripts" / "score_expert.py")
    monkeypatch.setattr(sys, "argv", [script, str(corpus), "--checkpoint", str(expert)])
    runpy.run_path(script, run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "seen speakers, whole clips: 100.0% (100.0% to 100.0%), 2 of 2 clips"
    # 51 segments of 25 frames in each of two clips of 75.
    assert lines[1].endswith("of 102 segments of 2 clips")
    assert lines[2] == "unseen speakers, whole clips: no clips"
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path)])
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
    assert "is not a prepared corpus" in capsys.readouterr().err


def write_video(path, frames_late=0, audio_seed=100, seconds=3):
    """Write a video of a drawn speaker; with another `audio_seed` the audio does not match."""
    character, duration_s = Character.of(0), Fraction(seconds)
    _, opening = speak(character, duration_s, 16_000, make_rng(100, 1, 0))
    samples, _ = speak(character, duration_s, 16_000, make_rng(audio_seed, 1, 0))
    with VideoWriter(path, SIZE, SIZE, Fraction(25), 16_000) as writer:
        for value in opening[320::640]:
            writer.write(draw_face(character, float(value), SIZE))
        writer.write_audio(np.ascontiguousarray(late(samples, frames_late)))


def make(tmp_path, expert, sync=None, write=True, **video):
    source = tmp_path / "raw.mp4"
    if write:
        write_video(source, **video)
    rules = SyncRules(str(expert), **(sync or {})) if expert else None
    maker = ClipMaker(FixedDetector(SPEC, SIZE), "drawn", SPEC, ClipRules(), rules)
    task = ClipTask(source, "a/raw", tmp_path / "clip.safetensors")
    return maker.run(task), task.clip_path


@pytest.mark.slow
@pytest.mark.parametrize("shift", [3, -4])
def test_prepare_corrects_the_offset(tmp_path, expert, shift):
    uncorrected, path = make(tmp_path, expert, {"correct": False}, frames_late=shift)
    first = max(0, -uncorrected.offset.frames)
    expected = ClipFile(path).faces(first, first + 1)
    result, _ = make(tmp_path, expert, write=False)
    assert (result.reason, result.offset) == ("", uncorrected.offset)
    assert abs(result.offset.frames - shift) <= 1
    clip = ClipFile(path)
    assert len(clip) == result.num_frames == 75 - abs(result.offset.frames)
    assert len(clip.tensor("audio")) == 640 * len(clip)
    assert clip.mel().shape[1] == clip.tensor("prosody").shape[1] == len(clip) * 640 // 200 + 1
    for name in ("mouth_opening", "lips", "transforms"):
        assert len(clip.tensor(name)) == len(clip)
    assert abs(offset_of(clip, load_sync_expert(expert, SPEC), SPEC).frames) <= 1
    # The frames that still have audio are kept.
    np.testing.assert_array_equal(clip.faces(0, 1), expected)


@pytest.mark.slow
def test_videos_without_agreement_of_audio_and_mouth_are_skipped(tmp_path, expert):
    result, path = make(tmp_path, expert, {"max_offset_frames": 3}, frames_late=6)
    assert result.reason == "out of sync"
    assert "its offset is +" in result.detail
    assert "at most 3 are allowed" in result.detail
    assert not path.exists()
    own, _ = make(tmp_path, expert)
    needed = {"min_confidence": round(0.9 * own.offset.confidence, 2)}
    assert make(tmp_path, expert, needed, write=False)[0].reason == ""
    result, _ = make(tmp_path, expert, needed, audio_seed=7)
    assert result.reason == "low confidence"
    assert f"{needed['min_confidence']} is needed" in result.detail
    assert make(tmp_path, expert, needed, write=False)[0].reused
    # After correction, this clip is too short.
    length, confident = Fraction(26, 25), {"min_confidence": 0.0}
    result, _ = make(tmp_path, expert, confident | {"correct": False}, seconds=length)
    assert result.reason == ""
    result, _ = make(tmp_path, expert, confident, frames_late=4, seconds=length)
    assert result.reason == "too short"
    assert "1.0 s are needed" in result.detail


@pytest.mark.slow
def test_clip_is_prepared_again_with_other_sync_settings(tmp_path, expert):
    assert make(tmp_path, None)[0].offset is None
    measured, _ = make(tmp_path, expert, write=False)
    again, _ = make(tmp_path, expert, write=False)
    assert (measured.reused, again.reused) == (False, True)
    assert again.offset == measured.offset
    for sync in ({"correct": False}, {"max_offset_frames": 9}, {"min_confidence": 0.1}):
        assert not make(tmp_path, expert, sync, write=False)[0].reused
    # Sync experts are compared by their content, not by their file name.
    for seed in (0, 1):
        torch.manual_seed(seed)
        other = save(tmp_path, EXPERT, SyncDiscriminator(**ARGUMENTS), ARGUMENTS)
        assert not make(tmp_path, other, {"min_confidence": 0.0}, write=False)[0].reused


def test_unusable_experts_are_refused(tmp_path):
    for name in ("generator", "expert"):
        (tmp_path / name).mkdir()
    generator = save(tmp_path / "generator", GENERATOR, torch.nn.Linear(1, 1), {})
    expert = save(tmp_path / "expert", EXPERT, SyncDiscriminator(**ARGUMENTS), ARGUMENTS)
    for path, spec, message in (
        (tmp_path / "gone.ckpt", SPEC, r"gone\.ckpt does not exist.*experiment=sync_expert`"),
        (generator, SPEC, r"no sync expert: .*no sync_expert.*; give a checkpoint"),
        (expert, AVSpec(), r"another AVSpec \(.*face_size: 160 != 256"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_sync_expert(path, spec)
