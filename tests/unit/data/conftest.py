"""Fixtures of the tests of data."""

import pytest

from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.types import AVSpec


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Return a corpus of two speakers with two training, one test and one validation clip each."""
    directory = tmp_path_factory.mktemp("corpus")
    make_synthetic_corpus(directory, AVSpec(), num_speakers=2, clips_per_speaker=4, seconds=2.0)
    return directory
