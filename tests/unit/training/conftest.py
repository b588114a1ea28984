"""Fixtures of the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_training import SPEC

from talkinghead.data.synthetic_clips import make_synthetic_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(path, SPEC, num_speakers=2, clips_per_speaker=3, seconds=1.6)
    return path
