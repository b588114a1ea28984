"""Windows of clips."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.utils.data import default_collate

from talkinghead.data.augmentation.batch_augmentation import finish_batch
from talkinghead.data.dataset import ClipDataset, EvenClipDataset
from talkinghead.data.manifest import Manifest
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.errors import CorpusError
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.types import AVSpec

SPEC = AVSpec()
CONTEXT, FRAMES, LOOKAHEAD = 16, 3, 2


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(directory, SPEC, num_speakers=2, clips_per_speaker=4, seconds=2.0)
    return directory


def items(corpus, count, split="train", **options):
    dataset = ClipDataset(corpus, split, FRAMES, CONTEXT, LOOKAHEAD, **options)
    return dataset, [dataset[index] for index in range(count)]


def same(a, b):
    return all(
        torch.allclose(a[k].float(), b[k].float(), rtol=0, atol=0, equal_nan=True)
        if torch.is_tensor(a[k])
        else a[k] == b[k]
        for k in a
    )


def test_shapes_and_types(corpus):
    _, (item,) = items(corpus, 1)
    assert item["reference_face"].shape == item["mean_face"].shape == (3, 256, 256)
    assert item["faces"].shape == (FRAMES, 3, 256, 256)
    assert item["faces"].dtype == torch.uint8
    assert item["mel"].shape == item["mel_negative"].shape == (80, 80)
    assert item["window_starts"].shape == (CONTEXT + FRAMES + LOOKAHEAD,)
    assert item["lip_points"].shape == (FRAMES, 20, 2)
    assert item["reference_lips"].shape == (20, 2)
    assert item["lips"].shape == (CONTEXT + FRAMES + LOOKAHEAD, 20, 2)


def test_items_are_functions_of_seed_and_index(corpus):
    first, again, other = (items(corpus, 6, seed=seed)[1] for seed in (0, 0, 1))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not all(same(a, b) for a, b in zip(first, other, strict=True))
    assert not same(first[0] | {"index": 1}, first[1])


def test_faces_and_windows_belong_to_the_same_frames(corpus):
    """Windows equal those that the features' own function cuts from the clip, at its ends too."""
    dataset, drawn = items(corpus, 40)
    batch = finish_batch(default_collate(drawn), SPEC)
    starts = set()
    for number, item in enumerate(drawn):
        clip = dataset.open(item["clip_index"])
        start = item["start"]
        frames = range(start - CONTEXT, start + FRAMES + LOOKAHEAD)
        expected = mel_windows(torch.from_numpy(clip.mel()), frames, SPEC.fps, SPEC)
        torch.testing.assert_close(batch["mel"][number], expected)
        faces = clip.faces(start, start + FRAMES).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(item["faces"], faces)
        starts.add(start)
    assert min(starts) < CONTEXT / 2
    assert max(starts) > 40


def test_lips_move_with_the_frames_and_are_unknown_beyond_the_ends(corpus):
    dataset, drawn = items(corpus, 40)
    for item in drawn:
        motion = lip_motion(dataset.open(item["clip_index"]).tensor("lips"))
        for window, lips in enumerate(item["lips"].numpy()):
            frame = item["start"] - CONTEXT + window
            if 0 <= frame < len(motion):
                np.testing.assert_array_equal(lips, motion[frame])
            else:
                assert np.isnan(lips).all()


def test_silence_lies_beyond_the_ends(corpus):
    _dataset, drawn = items(corpus, 60)
    early = next(item for item in drawn if item["start"] < 4)
    assert (early["mel"][:, :20] == MEL_SILENCE).all()


def test_prosody_adds_rows(corpus):
    _, (item,) = items(corpus, 1, audio_features=("mel", "prosody"))
    assert item["mel"].shape == (83, 80)
    _, (plain,) = items(corpus, 1)
    assert torch.equal(item["mel"][:80], plain["mel"])


def test_reference_is_away_from_the_targets_and_often_open(corpus):
    dataset = ClipDataset(corpus, "train", FRAMES, open_reference_fraction=1.0)
    rng = np.random.default_rng(0)
    opening = np.linspace(0, 1, 50, dtype=np.float32)
    for start in range(48):
        frame = dataset._draw_reference(opening, start, rng)
        assert max(start - frame, frame - (start + FRAMES - 1)) >= 10
        assert start > 27 or opening[frame] > 0.8
    # A clip too short for the gap gives what is farthest away.
    assert dataset._draw_reference(opening[:12], 0, rng) == 11


def test_reference_and_targets_avoid_frames_without_a_face(corpus):
    dataset = ClipDataset(corpus, "train", FRAMES, open_reference_fraction=0.0)
    rng = np.random.default_rng(0)
    opening = np.full(50, 0.1, np.float32)
    opening[10:40] = np.nan
    for _ in range(30):
        start = dataset._draw_start(opening, rng)
        assert not np.isnan(opening[start : start + FRAMES]).any()
        assert not np.isnan(opening[dataset._draw_reference(opening, start, rng)])


def test_negatives_are_other_sound_of_the_same_and_of_other_clips(corpus):
    dataset, drawn = items(corpus, 40)
    own = 0
    for item in drawn:
        assert not torch.equal(item["mel"], item["mel_negative"])
        mel = dataset.open(item["clip_index"]).mel()
        middle = item["mel_negative"][:, 40:44].numpy()
        own += any(np.array_equal(mel[:, k : k + 4], middle) for k in range(mel.shape[1] - 4))
    assert 10 < own < 36


def test_speakers_are_balanced(corpus):
    _, drawn = items(corpus, 60, speaker_weights={"cartoon1": 0.9})
    assert sum(item["speaker"] == "cartoon1" for item in drawn) > 42


def test_windows_per_clip_come_from_one_clip(corpus):
    _, drawn = items(corpus, 32, windows_per_clip=4)
    groups = [{item["clip_index"] for item in drawn[n : n + 4]} for n in range(0, 32, 4)]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) > 1
    assert len({item["start"] for item in drawn[:4]}) > 1


def test_even_windows_never_change_and_visit_every_clip(corpus):
    dataset = EvenClipDataset(corpus, "val", num_windows=8, num_frames=FRAMES, seed=3)
    assert len(dataset) == 8
    assert {dataset[n]["clip_index"] for n in range(8)} == {0, 1}
    assert same(
        dataset[5], EvenClipDataset(corpus, "val", num_windows=8, num_frames=FRAMES, seed=3)[5]
    )


def test_emotions_are_numbers_among_those_asked_for(corpus, tmp_path):
    manifest = Manifest.load(corpus)
    clips = [
        replace(clip, emotion="calm" if clip.speaker == "cartoon0" else "angry")
        for clip in manifest.clips
    ]
    replace(manifest, clips=tuple(clips)).save(tmp_path)
    (tmp_path / "clips").symlink_to(corpus / "clips")
    dataset, drawn = items(tmp_path, 20, emotions=["calm", "angry"])
    assert {item["emotion"] for item in drawn} == {0, 1}
    for item in drawn:
        assert item["emotion"] == int(dataset.clips[item["clip_index"]].speaker == "cartoon1")
    with pytest.raises(CorpusError, match=r"emotions is calm, but 2 of 4 clips .* \(angry; carto"):
        items(tmp_path, 1, emotions=["calm"])
    with pytest.raises(CorpusError, match=r"4 of 4 clips .* None .*emotions=folder"):
        items(corpus, 1, emotions=["calm"])


def test_heads_are_turned_from_the_references(corpus, tmp_path):
    manifest, poses = Manifest.load(corpus), np.zeros((50, 3), np.float32)
    poses[:, 0] = np.arange(50)
    poses[40:] = np.nan
    clip = manifest.split("train")[0]
    replace(manifest, clips=(clip,)).save(tmp_path)
    write_turned(corpus / clip.path, tmp_path / clip.path, poses)
    _, drawn = items(tmp_path, 30, head_pose=True)
    plain = items(tmp_path, 30)[1]
    for item, other in zip(drawn, plain, strict=True):
        turn, first = item["head_turn"].numpy(), item["start"]
        assert (turn.shape, turn.dtype) == ((FRAMES, 3), np.float32)
        assert (turn[:, 1:] == 0).all()
        assert np.isfinite(turn).all()
        if turn[0, 0]:
            reference = first - turn[0, 0]
            expected = np.nan_to_num(poses[first : first + FRAMES, 0] - reference)
            np.testing.assert_array_equal(turn[:, 0], expected)
        assert same(other, {name: item[name] for name in other})
    assert any(item["head_turn"].any() for item in drawn)


def write_turned(source, target, poses):
    """A clip's file with other head poses."""
    tensors = load_file(source) | {"head_pose": poses}
    target.parent.mkdir(parents=True)
    save_file(tensors, target)


def test_split_without_long_clips_is_an_error(corpus, tmp_path):
    with pytest.raises(CorpusError, match="no clip of 51 frames"):
        ClipDataset(corpus, "train", 51)
    manifest = Manifest.load(corpus)
    Manifest(SPEC, "drawn", "1", tuple(manifest.split("train"))).save(tmp_path)
    with pytest.raises(CorpusError, match="in split val"):
        ClipDataset(tmp_path, "val")
