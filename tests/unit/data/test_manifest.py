"""The manifest and the stable splits."""

import json

import pytest

from talkinghead.data.manifest import ClipEntry, Manifest, SkippedClip, assign_split
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


def test_what_is_saved_is_loaded(tmp_path, manifest):
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    assert [clip.id for clip in manifest.split("train")] == ["a/0", "a/2"]


def test_manifests_from_before_offsets_were_measured_load(tmp_path, manifest):
    manifest.save(tmp_path)
    values = json.loads((tmp_path / "manifest.json").read_text())
    for clip in values["clips"]:
        del clip["offset_frames"], clip["sync_confidence"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    assert Manifest.load(tmp_path) == manifest


def test_folder_without_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(CorpusError, match="talkinghead prepare"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"av": {}}', "null"])
def test_broken_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CorpusError, match=r"manifest\.json is broken"):
        Manifest.load(tmp_path)


def test_other_schema_is_refused(tmp_path, manifest):
    manifest.save(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(CorpusError, match="schema version 99"):
        Manifest.load(tmp_path)


def test_other_spec_is_refused_by_field(tmp_path, manifest):
    with pytest.raises(CorpusError, match="hop_length: 200 != 160"):
        manifest.require_spec(AVSpec(hop_length=160), tmp_path)
    manifest.require_spec(AVSpec(), tmp_path)


def test_splits_have_their_shares_and_never_move():
    ids = [f"s{n % 7}/clip{n}" for n in range(4000)]
    splits = {i: assign_split(i, i[:2], val_fraction=0.1, test_fraction=0.2) for i in ids}
    shares = {name: list(splits.values()).count(name) / len(ids) for name in ("val", "test")}
    assert shares["val"] == pytest.approx(0.1, abs=0.02)
    assert shares["test"] == pytest.approx(0.2, abs=0.03)
    # A larger share takes clips in and moves none of the others out.
    more = {i: assign_split(i, i[:2], val_fraction=0.15, test_fraction=0.2) for i in ids}
    assert {i for i in ids if splits[i] == "val"} < {i for i in ids if more[i] == "val"}


def test_by_speaker_keeps_speakers_whole_and_holdouts_are_tested():
    names = [f"speaker{n}" for n in range(200)]
    for name in names:
        options = {"val_fraction": 0.3, "split_by": "speaker"}
        assert len({assign_split(f"{name}/{n}", name, **options) for n in range(5)}) == 1
    assert len({assign_split(f"{name}/0", name, **options) for name in names}) == 2
    assert assign_split("s3/a", "s3", val_fraction=1.0, holdout_speakers=["s3"]) == "test"
