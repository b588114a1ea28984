"""Tests of the windows of clips."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.utils.data import default_collate

from talkinghead.data.augmentation.finished_batch import finish_batch
from talkinghead.data.data_options import SamplingOptions, WindowOptions
from talkinghead.data.dataset import ClipDataset, EvenClipDataset
from talkinghead.data.manifest import Manifest
from talkinghead.errors import CorpusError
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.types import AVSpec

SPEC = AVSpec()
CONTEXT, FRAMES, LOOKAHEAD = 16, 3, 2


def items(corpus, count, sampling=None, **options):
    dataset = ClipDataset(corpus, "train", WindowOptions(FRAMES, CONTEXT, **options), sampling)
    return dataset, [dataset[index] for index in range(count)]


def arrays(item):
    return {key: np.asarray(value) for key, value in item.items()}


def test_items_depend_on_seed_and_index_only(corpus):
    first, again, other = (items(corpus, 6, seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_equal([*map(arrays, again)], [*map(arrays, first)])
    draws = [[(item["clip"], item["start"]) for item in drawn] for drawn in (first, other)]
    assert draws[0] != draws[1]
    assert len(set(draws[0])) > 1


def test_faces_audio_and_lips_belong_to_the_same_frames(corpus):
    """Compare windows with windows cut from the whole clip, also at both ends of the clip."""
    dataset, drawn = items(corpus, 40)
    batch = finish_batch(default_collate(drawn), SPEC)
    for number, item in enumerate(drawn):
        clip = dataset.open(item["clip_index"])
        start = item["start"]
        frames = range(start - CONTEXT, start + FRAMES + LOOKAHEAD)
        expected = mel_windows(torch.from_numpy(clip.mel()), frames, SPEC.fps, SPEC)
        torch.testing.assert_close(batch["mel"][number], expected)
        faces = clip.faces(start, start + FRAMES).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(item["faces"], faces)
        lips = clip.tensor("lips")
        np.testing.assert_array_equal(item["lip_points"], lips[start : start + FRAMES])
        motion = np.pad(lip_motion(lips), ((CONTEXT, 50), (0, 0), (0, 0)), constant_values=np.nan)
        np.testing.assert_array_equal(item["lips"], motion[start:][: len(frames)])
        if start < 4:
            assert (item["mel"][:, :20] == MEL_SILENCE).all()
    starts = [item["start"] for item in drawn]
    assert min(starts) < 4
    assert max(starts) > 40
    _, (item,) = items(corpus, 1, audio_features=("mel", "prosody"))
    assert item["mel"].shape == (83, 80)
    assert torch.equal(item["mel"][:80], drawn[0]["mel"])


def test_reference_is_far_from_the_targets_and_often_open(corpus):
    dataset, _ = items(corpus, 0, open_reference_fraction=1.0)
    rng = np.random.default_rng(0)
    opening = np.linspace(0, 1, 50, dtype=np.float32)
    for start in range(48):
        frame = dataset._draw_reference(opening, start, rng)
        assert max(start - frame, frame - (start + FRAMES - 1)) >= 10
        assert start > 27 or opening[frame] > 0.8
    # In a clip that is too short for the gap, the most distant frame is the reference.
    assert dataset._draw_reference(opening[:12], 0, rng) == 11
    # Frames without a face are neither reference nor target.
    opening[10:40] = np.nan
    for _ in range(30):
        start = dataset._draw_start(opening, rng)
        assert not np.isnan(opening[start : start + FRAMES]).any()
        assert not np.isnan(opening[dataset._draw_reference(opening, start, rng)])


def test_negative_audio_is_from_the_same_and_from_other_clips(corpus):
    dataset, drawn = items(corpus, 40)
    own = 0
    for item in drawn:
        assert not torch.equal(item["mel"], item["mel_negative"])
        mel = dataset.open(item["clip_index"]).mel()
        middle = item["mel_negative"][:, 40:44].numpy()
        own += any(np.array_equal(mel[:, k : k + 4], middle) for k in range(mel.shape[1] - 4))
    assert 10 < own < 36


def test_sampling_options_choose_the_clips(corpus):
    _, drawn = items(corpus, 60, SamplingOptions(speaker_weights={"cartoon1": 0.9}))
    assert sum(item["speaker"] == "cartoon1" for item in drawn) > 42
    _, drawn = items(corpus, 32, SamplingOptions(windows_per_clip=4))
    groups = [{item["clip_index"] for item in drawn[n : n + 4]} for n in range(0, 32, 4)]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) > 1
    assert len({item["start"] for item in drawn[:4]}) > 1


def test_even_windows_are_fixed_and_cover_every_clip(corpus):
    windows = WindowOptions(FRAMES, seed=3)
    first, again = (EvenClipDataset(corpus, "val", windows, num_windows=8) for _ in range(2))
    assert len(first) == 8
    assert {first[n]["clip_index"] for n in range(8)} == {0, 1}
    np.testing.assert_equal(arrays(again[5]), arrays(first[5]))


def test_emotions_are_numbered_and_unusable_clips_refused(corpus, tmp_path):
    manifest = Manifest.load(corpus)
    labels = {"cartoon0": "calm", "cartoon1": "angry"}
    clips = [replace(clip, emotion=labels[clip.speaker]) for clip in manifest.clips]
    replace(manifest, clips=tuple(clips)).save(tmp_path)
    (tmp_path / "clips").symlink_to(corpus / "clips")
    dataset, drawn = items(tmp_path, 20, emotions=["calm", "angry"])
    assert {item["emotion"] for item in drawn} == {0, 1}
    for item in drawn:
        assert item["emotion"] == int(dataset.clips[item["clip_index"]].speaker == "cartoon1")
    with pytest.raises(CorpusError, match=r"emotions is calm, but 2 of 4 clips .* \(angry; for ex"):
        items(tmp_path, 1, emotions=["calm"])
    with pytest.raises(CorpusError, match=r"4 of 4 clips .* None .*emotions=folder"):
        items(corpus, 1, emotions=["calm"])
    with pytest.raises(CorpusError, match=r"no clip of 51 frames or more in split val; .*prepare"):
        ClipDataset(corpus, "val", WindowOptions(51))


def test_head_turn_is_relative_to_the_reference(corpus, tmp_path):
    manifest, poses = Manifest.load(corpus), np.zeros((50, 3), np.float32)
    poses[:, 0] = np.arange(50)
    poses[40:] = np.nan
    clip = manifest.split("train")[0]
    replace(manifest, clips=(clip,)).save(tmp_path)
    (tmp_path / clip.path).parent.mkdir(parents=True)
    save_file(load_file(corpus / clip.path) | {"head_pose": poses}, tmp_path / clip.path)
    turns = []
    for item in items(tmp_path, 30, head_pose=True)[1]:
        turn, first = item["head_turn"].numpy(), item["start"]
        assert (turn.shape, turn.dtype) == ((FRAMES, 3), np.float32)
        if turn[0, 0]:
            expected = np.zeros((FRAMES, 3), np.float32)
            expected[:, 0] = poses[first : first + FRAMES, 0] - (first - turn[0, 0])
            np.testing.assert_array_equal(turn, np.nan_to_num(expected))
        turns.append(turn)
    assert np.isfinite(turns).all()
    assert np.any(turns)
