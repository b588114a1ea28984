"""Fixtures for tests of speech providers."""

import pytest
from helpers.openai_server import run_openai_server

from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import DEMO_SPEECH


@pytest.fixture
def server():
    """Return a fake OpenAI server."""
    pytest.importorskip("openai", reason="needs the extra speech")
    pytest.importorskip("faster_whisper", reason="its detector finds the speech to send")
    with run_openai_server() as server:
        yield server


@pytest.fixture(scope="session")
def speech():
    """Return three sentences separated by silence, at 16 kHz."""
    return read_audio(DEMO_SPEECH, 16_000).samples
