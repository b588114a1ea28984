"""Tests of sharded corpora."""

from dataclasses import replace

import numpy as np
import pytest

from talkinghead.cli.main import main
from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.manifest import Manifest
from talkinghead.data.shards import ShardedCorpus, ShardedDataModule, write_shards
from talkinghead.errors import CorpusError, DependencyError, UsageError

pytest.importorskip("litdata")


@pytest.fixture(scope="module")
def shards(corpus, tmp_path_factory):
    """Write a corpus of several shards with the command, and return its folder."""
    output = tmp_path_factory.mktemp("shards") / "mine"
    assert main(["shard", f"input={corpus}", f"output={output}", "shard_mb=1"]) == 0
    assert len(list(output.glob("*.bin"))) > 2
    return output


def batches(datamodule):
    datamodule.setup("fit")
    loaders = datamodule.train_dataloader(), datamodule.val_dataloader()
    made = [batch for loader in loaders for batch in loader] + [datamodule.preview_batch(2)]
    return [{key: np.asarray(value) for key, value in batch.items()} for batch in made]


@pytest.mark.slow
def test_batches_equal_those_of_the_folder(corpus, shards, tmp_path):
    options = {"batch_size": 2, "num_frames": 2, "iterations_per_epoch": 3, "val_windows": 4}
    expected = batches(LipSyncDataModule(corpus, num_workers=0, **options))
    given = batches(ShardedDataModule(shards, tmp_path, num_workers=2, **options))
    assert len(expected) == 6
    np.testing.assert_equal(given, expected)


def test_clip_is_copied_once_to_a_folder_that_depends_on_the_manifest(corpus, shards, tmp_path):
    sharded = ShardedCorpus(str(shards), tmp_path)
    path = Manifest.load(corpus).clips[3].path
    assert not (sharded.directory / path).exists()
    sharded.open(path)
    assert (sharded.directory / path).read_bytes() == (corpus / path).read_bytes()
    written = (sharded.directory / path).stat().st_mtime_ns
    sharded.open(path)
    assert (sharded.directory / path).stat().st_mtime_ns == written
    copies = [p.name for p in sharded.directory.rglob("*") if p.is_file()]
    assert sorted(copies) == ["clip3.safetensors", "manifest.json"]
    replace(Manifest.load(corpus), detector="another").save(tmp_path / "b")
    (tmp_path / "b" / "clips").symlink_to(corpus / "clips")
    write_shards(tmp_path / "b", tmp_path / "shards")
    assert ShardedCorpus(str(tmp_path / "shards"), tmp_path).directory != sharded.directory


def test_unusable_folders_are_refused(corpus, tmp_path):
    with pytest.raises(CorpusError, match="has no readable shards"):
        ShardedCorpus(str(tmp_path), tmp_path / "cache")
    with pytest.raises(UsageError, match="is not empty"):
        write_shards(corpus, corpus)
    with pytest.raises(UsageError, match="shard_mb=0"):
        write_shards(corpus, tmp_path / "new", shard_mb=0)
    with pytest.raises(CorpusError, match="not a prepared corpus"):
        write_shards(tmp_path, tmp_path / "new")


def test_broken_shard_is_refused_with_the_clip(corpus, shards, tmp_path):
    sharded = ShardedCorpus(str(shards), tmp_path)
    clip = Manifest.load(corpus).clips[-1].path
    last = sorted(shards.glob("*.bin"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(CorpusError, match="clip3"):
            sharded.open(clip)
    finally:
        last.write_bytes(whole)


def test_missing_litdata_names_the_extra(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("talkinghead.data.shards.find_spec", lambda name: None)
    for use in (ShardedCorpus, write_shards):
        with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[shards\]'"):
            use(str(corpus), tmp_path / "new")
