"""Tests of the manifest."""

import json

import pytest

from talkinghead.data.manifest import ClipEntry, Manifest, SkippedClip
from talkinghead.errors import CorpusError
from talkinghead.types import AVSpec

CLIPS = tuple(
    ClipEntry(f"a/{n}", "a", f"clips/a/{n}.safetensors", 50, 2.0, split, f"a/{n}.mp4", "0" * 64)
    for n, split in enumerate(["train", "val", "train"])
)
SKIPPED = (SkippedClip("b/x.mp4", "no audio", "it has no audio stream"),)
MANIFEST = Manifest(AVSpec(), "litert", "1", CLIPS, SKIPPED)


def test_saved_manifest_is_loaded_also_without_the_newer_fields(tmp_path):
    MANIFEST.save(tmp_path)
    assert Manifest.load(tmp_path) == MANIFEST
    assert [clip.id for clip in MANIFEST.split("train")] == ["a/0", "a/2"]
    values = json.loads((tmp_path / "manifest.json").read_text())
    for clip in values["clips"]:
        del clip["offset_frames"], clip["sync_confidence"], clip["emotion"]
    del values["split_options"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    assert Manifest.load(tmp_path) == MANIFEST


def test_corpus_of_another_spec_is_refused_unless_only_the_mask_differs():
    MANIFEST.require_spec(AVSpec(mask_top=AVSpec().mouth_y), "corpus")
    with pytest.raises(CorpusError, match=r"corpus was prepared .*num_mels: 80 != 40, corpus"):
        MANIFEST.require_spec(AVSpec(num_mels=40, mask_top=120), "corpus")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not a prepared corpus.*talkinghead prepare"),
        ("{", r"manifest\.json is broken"),
        ("[]", r"manifest\.json is broken"),
        ('{"schema_version": 1}', r"manifest\.json is broken"),
        ('{"schema_version": 99}', "schema version 99"),
    ],
)
def test_unusable_manifest_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CorpusError, match=message):
        Manifest.load(tmp_path)
