"""Tests of the clip file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from talkinghead.data.clip_file import (
    ClipData,
    ClipFeatureReader,
    ClipFile,
    encode_face,
    read_metadata,
    write_clip,
)
from talkinghead.data.manifest import Manifest
from talkinghead.errors import CorpusError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.feature_registry import AUDIO_FEATURES
from talkinghead.features.prosody import Prosody
from talkinghead.types import AVSpec

RNG = np.random.default_rng(0)
SPEC = AVSpec()
FACES = [
    np.kron(RNG.integers(0, 255, (8, 8, 3)), np.ones((32, 32, 1))).astype(np.uint8)
    for _ in range(7)
]
DATA = ClipData(
    jpegs=[encode_face(face) for face in FACES],
    mel=RNG.uniform(-4, 4, (80, 25)).astype(np.float32),
    prosody=RNG.uniform(-1, 1, (3, 25)).astype(np.float32),
    audio=np.float32([0.0, 1.0, -1.0, 2.0, 0.5]),
    mouth_opening=np.linspace(0, 1, 7, dtype=np.float32),
    lips=RNG.uniform(0, 256, (7, 20, 2)).astype(np.float32),
    transforms=RNG.uniform(size=(7, 2, 3)).astype(np.float32),
    mean_face=np.zeros((3, 256, 256), np.uint8),
    mean_mouth=np.zeros((3, 96, 96), np.uint8),
)


def write(tmp_path, **changes):
    path = tmp_path / "a b, c=d" / "clip.safetensors"
    write_clip(path, replace(DATA, **changes), {"key": "k"})
    return path


def test_written_clip_is_read_back(tmp_path):
    path = write(tmp_path)
    clip = ClipFile(path)
    assert len(clip) == 7
    assert np.abs(clip.mel() - DATA.mel).max() < 3e-3
    np.testing.assert_array_equal(clip.tensor("transforms"), DATA.transforms)
    np.testing.assert_array_equal(clip.tensor("lips"), DATA.lips)
    # Audio samples outside [-1, 1] are clipped.
    np.testing.assert_array_equal(clip.tensor("audio"), [0, 32767, -32767, 32767, 16384])
    whole = clip.faces(0, 7)
    assert np.abs(whole.astype(int) - np.stack(FACES)).mean() < 3
    np.testing.assert_array_equal(clip.faces(2, 5), whole[2:5])
    assert read_metadata(path) == {"key": "k"}
    with pytest.raises(CorpusError, match=r"has no head_pose: .* run `talkinghead prepare` again"):
        clip.tensor("head_pose")
    poses = RNG.uniform(-20, 20, (7, 3)).astype(np.float32)
    posed = ClipFile(write(tmp_path / "posed", head_pose=poses))
    np.testing.assert_array_equal(posed.tensor("head_pose"), poses)


@pytest.mark.parametrize("keep", [None, 0, 100, 3000])
def test_missing_or_truncated_file_is_refused(tmp_path, keep):
    path = write(tmp_path)
    content = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(content[:keep])
    assert read_metadata(path) is None
    with pytest.raises(CorpusError, match=r"missing or broken .* run `talkinghead prepare` again"):
        ClipFile(path)


def test_broken_image_is_refused_with_the_path(tmp_path):
    path = write(tmp_path, jpegs=[b"not an image"] * 7)
    with pytest.raises(CorpusError, match=r"clip\.safetensors has a broken image"):
        ClipFile(path).faces(3, 4)


def test_compression_does_not_leak_across_the_mouth_box(tmp_path):
    """Check that decoded pixels outside the mouth box do not depend on pixels inside."""
    x0, y0, x1, y1 = (int(v) for v in SPEC.mouth_box)
    changed = FACES[0].copy()
    changed[y0:y1, x0:x1] = RNG.integers(0, 255, (y1 - y0, x1 - x0, 3))
    jpegs = [encode_face(FACES[0]), encode_face(changed)]
    plain, other = ClipFile(write(tmp_path, jpegs=jpegs)).faces(0, 2).copy()
    assert not np.array_equal(plain, other)
    plain[y0:y1, x0:x1] = other[y0:y1, x0:x1] = 0
    np.testing.assert_array_equal(plain, other)


@pytest.fixture
def unstored_feature(monkeypatch):
    """Register the prosody feature under another name, which clip files do not contain."""

    class Unstored(Prosody):
        name = "unstored"

    monkeypatch.setitem(AUDIO_FEATURES, Unstored.name, Unstored)
    return Unstored.name


def test_features_are_read_or_computed_from_the_audio(corpus, unstored_feature, tmp_path):
    clip = ClipFile(corpus / Manifest.load(corpus).clips[0].path)
    mel, prosody = clip.mel(), clip.columns("prosody", 10, 20)
    rows = ClipFeatureReader(SPEC, ("prosody",)).read(clip, 10, 20)
    np.testing.assert_array_equal(rows, np.concatenate([mel[:, 10:20], prosody]))
    samples = torch.from_numpy(clip.tensor("audio").astype(np.float32) / 32767)
    whole = AudioFeatures(SPEC, (unstored_feature,))(samples)
    reader = ClipFeatureReader(SPEC, ("mel", unstored_feature))
    for start, stop in ((0, None), (-5, 12), (30, 40), (150, 200), (170, 175)):
        rows = reader.read(clip, start, stop)
        expected = whole[:, max(0, start) : stop]
        torch.testing.assert_close(rows[80:], expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_array_equal(rows[:80], mel[:, max(0, start) : stop])
    tensors = {k: v for k, v in load_file(clip.path).items() if k != "audio"}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(CorpusError, match="stores neither unstored nor audio"):
        reader.read(ClipFile(tmp_path / "a.safetensors"))
