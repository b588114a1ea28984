"""A corpus of clips whose mouths follow the audio by construction."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bar_clips import SPEC, write_bar_clip

from talkinghead.data.manifest import Manifest
from talkinghead.evaluation.clip_scores import RealClip, load_clip


@pytest.fixture(scope="session")
def bar_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    names = [("ann", "train"), ("ann", "val"), ("ann", "val"), ("ben", "test"), ("cat", "test")]
    clips = [write_bar_clip(folder, f"c{i}", *pair, seed=i) for i, pair in enumerate(names)]
    Manifest(SPEC, "litert", "1", tuple(clips)).save(folder)
    return folder


@pytest.fixture(scope="session")
def bar_clips(bar_corpus: Path) -> list[RealClip]:
    """Return the two clips of the validation split."""
    return [load_clip(bar_corpus, clip, SPEC) for clip in Manifest.load(bar_corpus).split("val")]
