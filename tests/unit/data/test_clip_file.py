"""Tests of the clip file."""

from dataclasses import replace

import numpy as np
import pytest

from talkinghead.data.clip_file import ClipData, ClipFile, encode_face, read_metadata, write_clip
from talkinghead.errors import CorpusError
from talkinghead.types import AVSpec

RNG = np.random.default_rng(0)


def smooth_face(rng):
    return np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((32, 32, 1))).astype(np.uint8)


@pytest.fixture
def clip_path(tmp_path):
    faces = [smooth_face(RNG) for _ in range(7)]
    data = ClipData(
        jpegs=[encode_face(face) for face in faces],
        mel=RNG.uniform(-4, 4, (80, 25)).astype(np.float32),
        prosody=RNG.uniform(-1, 1, (3, 25)).astype(np.float32),
        audio=np.float32([0.0, 1.0, -1.0, 2.0, 0.5]),
        mouth_opening=np.linspace(0, 1, 7, dtype=np.float32),
        lips=RNG.uniform(0, 256, (7, 20, 2)).astype(np.float32),
        transforms=RNG.uniform(size=(7, 2, 3)).astype(np.float32),
        mean_face=np.zeros((3, 256, 256), np.uint8),
        mean_mouth=np.zeros((3, 96, 96), np.uint8),
    )
    path = tmp_path / "clips" / "a b, c=d" / "clip.safetensors"
    write_clip(path, data, {"key": "k"})
    return path, data, faces


def test_written_clip_is_read_back(clip_path):
    path, data, faces = clip_path
    clip = ClipFile(path)
    assert len(clip) == 7
    assert np.abs(clip.mel() - data.mel).max() < 3e-3
    np.testing.assert_array_equal(clip.tensor("transforms"), data.transforms)
    np.testing.assert_array_equal(clip.tensor("lips"), data.lips)
    # Samples out of range are clipped.
    np.testing.assert_array_equal(clip.tensor("audio"), [0, 32767, -32767, 32767, 16384])
    assert np.abs(clip.faces(0, 7).astype(int) - np.stack(faces)).mean() < 3
    assert read_metadata(path) == {"key": "k"}


def test_head_pose_is_optional(clip_path, tmp_path):
    path, data, _ = clip_path
    with pytest.raises(CorpusError, match=r"has no head_pose: .* run `talkinghead prepare` again"):
        ClipFile(path).tensor("head_pose")
    poses = RNG.uniform(-20, 20, (7, 3)).astype(np.float32)
    write_clip(tmp_path / "c.safetensors", replace(data, head_pose=poses), {})
    np.testing.assert_array_equal(ClipFile(tmp_path / "c.safetensors").tensor("head_pose"), poses)


def test_face_window_equals_the_frames_of_the_whole_clip(clip_path):
    clip = ClipFile(clip_path[0])
    whole = clip.faces(0, 7)
    for start, stop in [(0, 1), (2, 5), (6, 7)]:
        np.testing.assert_array_equal(clip.faces(start, stop), whole[start:stop])


@pytest.mark.parametrize(
    ("start", "stop", "inside"),
    [(3, 9, (3, 9)), (-4, 40, (0, 25)), (30, 40, (25, 25)), (-9, -2, (0, 0))],
)
def test_columns_outside_the_clip_are_omitted(clip_path, start, stop, inside):
    clip = ClipFile(clip_path[0])
    np.testing.assert_array_equal(clip.columns("mel", start, stop), clip.mel()[:, slice(*inside)])


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_truncated_file_is_refused(clip_path, keep):
    path = clip_path[0]
    path.write_bytes(path.read_bytes()[:keep])
    assert read_metadata(path) is None
    with pytest.raises(CorpusError, match="missing or broken"):
        ClipFile(path)


def test_missing_file_is_refused(tmp_path):
    assert read_metadata(tmp_path / "no") is None
    with pytest.raises(CorpusError, match="prepare` again"):
        ClipFile(tmp_path / "no")


def test_broken_image_is_refused_with_the_path(clip_path, tmp_path):
    _, data, _ = clip_path
    data.jpegs[3] = b"not an image"
    write_clip(tmp_path / "c.safetensors", data, {})
    with pytest.raises(CorpusError, match=r"c\.safetensors has a broken image"):
        ClipFile(tmp_path / "c.safetensors").faces(3, 4)


def test_compression_does_not_leak_across_the_mouth_box(clip_path, tmp_path):
    """Decoded pixels outside the mouth box do not depend on those inside."""
    _, data, faces = clip_path
    x0, y0, x1, y1 = (int(v) for v in AVSpec().mouth_box)
    changed = faces[0].copy()
    changed[y0:y1, x0:x1] = RNG.integers(0, 255, (y1 - y0, x1 - x0, 3))
    data.jpegs[:2] = [encode_face(faces[0]), encode_face(changed)]
    write_clip(tmp_path / "c.safetensors", data, {})
    plain, other = ClipFile(tmp_path / "c.safetensors").faces(0, 2).copy()
    assert not np.array_equal(plain, other)
    plain[y0:y1, x0:x1] = other[y0:y1, x0:x1] = 0
    np.testing.assert_array_equal(plain, other)
