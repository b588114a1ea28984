"""Tests of the audio features of clip files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from talkinghead.data.clip_file import ClipFeatureReader, ClipFile
from talkinghead.data.manifest import Manifest
from talkinghead.errors import CorpusError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.feature_registry import AUDIO_FEATURES
from talkinghead.features.prosody import Prosody
from talkinghead.types import AVSpec

SPEC = AVSpec()


@pytest.fixture
def clip(corpus: Path) -> ClipFile:
    return ClipFile(corpus / Manifest.load(corpus).clips[0].path)


@pytest.fixture
def unstored_feature(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register prosody under another name, which clip files do not store."""

    class Unstored(Prosody):
        name = "unstored"

    monkeypatch.setitem(AUDIO_FEATURES, Unstored.name, Unstored)
    return Unstored.name


def test_stored_features_are_read(clip: ClipFile) -> None:
    rows = ClipFeatureReader(SPEC, ("prosody",)).read(clip, 10, 20)
    assert torch.equal(rows[:80], torch.from_numpy(clip.mel()[:, 10:20]))
    assert np.array_equal(rows[80:], clip.columns("prosody", 10, 20))


@pytest.mark.parametrize(("start", "stop"), [(0, None), (-5, 12), (30, 40), (150, 200), (170, 175)])
def test_unstored_feature_is_computed_from_the_audio(
    clip: ClipFile, unstored_feature: str, start: int, stop: int | None
) -> None:
    reader = ClipFeatureReader(SPEC, ("mel", unstored_feature))
    samples = torch.from_numpy(clip.tensor("audio").astype(np.float32) / 32767)
    whole = AudioFeatures(SPEC, (unstored_feature,))(samples)
    rows = reader.read(clip, start, stop)
    torch.testing.assert_close(rows[80:], whole[:, max(0, start) : stop], atol=1e-5, rtol=1e-5)
    assert rows.shape[1] == len(clip.mel()[0, max(0, start) : stop])


def test_clip_without_feature_and_audio_is_refused(
    clip: ClipFile, unstored_feature: str, tmp_path: Path
) -> None:
    tensors = {k: v for k, v in load_file(clip.path).items() if k != "audio"}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(CorpusError, match="stores neither unstored nor audio"):
        ClipFeatureReader(SPEC, (unstored_feature,)).read(ClipFile(tmp_path / "a.safetensors"))
