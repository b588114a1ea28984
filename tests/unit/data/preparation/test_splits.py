"""Tests of the assignment of clips to splits."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.data.preparation.splits import SplitOptions, assign_splits
from talkinghead.types import AVSpec


def clips(names, num_frames=50):
    return [
        ClipEntry(name, name.split("/")[0], f"{name}.safetensors", num_frames, 2.0, "", "", "")
        for name in names
    ]


def splits(names, **options):
    assigned = assign_splits(clips(names), SplitOptions(**options))
    return {clip.id: clip.split for clip in assigned}


def test_large_corpus_has_the_expected_fractions():
    names = [f"s{n % 7}/clip{n}" for n in range(4000)]
    assigned = splits(names, test_fraction=0.2)
    sizes = Counter(assigned.values())
    assert sizes["val"] / len(names) == pytest.approx(0.1, abs=0.02)
    assert sizes["test"] / len(names) == pytest.approx(0.2, abs=0.03)
    # A larger fraction adds clips and removes none.
    more = splits(names, val_fraction=0.15, test_fraction=0.2)
    assert {n for n in names if assigned[n] == "val"} < {n for n in names if more[n] == "val"}


@pytest.mark.parametrize("test_fraction", [0.0, 0.5])
def test_small_corpora_have_every_split_that_they_can(test_fraction):
    for size, corpus in product((1, 2, 3, 14), range(40)):
        required = ["train", "val", "test"][: min(size, 3 if test_fraction else 2)]
        names = [f"anna/{corpus}-{n}" for n in range(size)]
        assigned = splits(names, test_fraction=test_fraction)
        assert set(required) == set(assigned.values())


def test_added_videos_do_not_move_earlier_clips():
    options = SplitOptions()
    for corpus in range(20):
        earlier = Manifest(AVSpec(), "", "", (), split_options=options.to_dict())
        for size in (1, 2, 3, 8, 40):
            names = [f"anna/{corpus}-{n}" for n in range(size)]
            assigned = assign_splits(clips(names), options, earlier)
            kept = {clip.id: clip.split for clip in assigned}
            assert all(kept[clip.id] == clip.split for clip in earlier.clips)
            assert size == 1 or "val" in kept.values()
            earlier = replace(earlier, clips=tuple(assigned))
    without = assign_splits(clips(names), SplitOptions(val_fraction=0.0), earlier)
    assert {clip.split for clip in without} == {"train"}


def test_validation_clip_is_long_enough_for_training():
    short, long = clips(["a/1", "a/2", "a/3"], 10), clips(["a/4", "a/5"], 50)
    assigned = assign_splits(short + long, SplitOptions(val_fraction=1e-6))
    assert sorted(clip.split for clip in assigned[3:]) == ["train", "val"]


def test_speakers_are_kept_whole_and_held_out_ones_are_in_test():
    names = [f"speaker{n}/{take}" for n in range(6) for take in range(5)]
    assigned = splits(names, split_by="speaker", holdout_speakers=["speaker3"])
    pairs = {(name.split("/")[0], split) for name, split in assigned.items()}
    assert len(pairs) == 6
    assert [speaker for speaker, split in pairs if split == "test"] == ["speaker3"]
    assert "val" in assigned.values()
