"""Tests of the manifest."""

import json

import pytest

from talkinghead.data.manifest import ClipEntry, Manifest, SkippedClip
from talkinghead.errors import CorpusError
from talkinghead.types import AVSpec


@pytest.fixture
def manifest() -> Manifest:
    clips = tuple(
        ClipEntry(f"a/{n}", "a", f"clips/a/{n}.safetensors", 50, 2.0, split, f"a/{n}.mp4", "0" * 64)
        for n, split in enumerate(["train", "val", "train"])
    )
    skipped = (SkippedClip("b/x.mp4", "no audio", "it has no audio stream"),)
    return Manifest(AVSpec(), "litert", "1", clips, skipped)


def test_saved_manifest_is_loaded(tmp_path, manifest):
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    assert [clip.id for clip in manifest.split("train")] == ["a/0", "a/2"]


def test_manifest_without_offsets_is_loaded(tmp_path, manifest):
    """Manifests of early versions have none."""
    manifest.save(tmp_path)
    values = json.loads((tmp_path / "manifest.json").read_text())
    for clip in values["clips"]:
        del clip["offset_frames"], clip["sync_confidence"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    assert Manifest.load(tmp_path) == manifest


def test_missing_manifest_names_the_command(tmp_path):
    with pytest.raises(CorpusError, match="talkinghead prepare"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}'])
def test_broken_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CorpusError, match=r"manifest\.json is broken"):
        Manifest.load(tmp_path)


def test_other_schema_and_spec_are_refused(tmp_path, manifest):
    manifest.require_spec(AVSpec(), tmp_path)
    with pytest.raises(CorpusError, match="hop_length: 200 != 160"):
        manifest.require_spec(AVSpec(hop_length=160), tmp_path)
    manifest.save(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(CorpusError, match="schema version 99"):
        Manifest.load(tmp_path)
