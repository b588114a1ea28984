"""A conversation by OpenAI's protocol, from end to end: what it leaves has no trace of the key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.openai_server import (
    END,
    KEY,
    OpenAIServer,
    chat_response,
    error_response,
    pcm_response,
    run_openai_server,
    transcript_response,
)
from helpers.predict_command import make_files

from talkinghead.cli.main import main
from talkinghead.media.audio_decoding import read_audio
from talkinghead.media.reader import probe
from talkinghead.paths import DEMO_SPEECH

pytest.importorskip("openai", reason="needs the extra speech")
pytest.importorskip("faster_whisper", reason="its detector hears when somebody speaks")
pytest.importorskip("pyloudnorm", reason="needs the extra speech")

GROUPS = ("stt", "llm", "tts")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with run_openai_server() as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("inputs"))


def converse(files: Path, server: OpenAIServer) -> int:
    return main(
        [
            "converse",
            "hydra.verbose=true",
            f"checkpoint={files / 'good.safetensors'}",
            f"face={files / 'face.png'}",
            f"audio={DEMO_SPEECH}",
            "output=answer.mp4",
            *(f"{group}=openai" for group in GROUPS),
            *(f"{group}.base_url={server.url}" for group in GROUPS),
        ]
    )


def traces(folder: Path) -> list[str]:
    """The files that the key is in."""
    return [str(p) for p in folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_conversation(
    files: Path,
    server: OpenAIServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = read_audio(DEMO_SPEECH, 24_000).samples[:24_000]
    speech = np.rint(sentence * 32_767).astype("<i2").tobytes()
    server.answers += [
        transcript_response("Who are you?"),
        error_response(500, f"oh: {KEY}"),
        chat_response("I am ", "Ada. ", "And you?", *END),
        pcm_response(speech[:9999], speech[9999:]),
        pcm_response(speech),
    ]
    assert converse(files, server) == 0
    heard, _, asked, *spoken = server.requests
    assert heard.path.endswith("/transcriptions")
    assert asked.json["messages"][-1] == {"role": "user", "content": "Who are you?"}
    assert [request.json["input"] for request in spoken] == ["I am Ada.", "And you?"]
    assert probe(tmp_path / "answer.mp4").duration_s > 2
    written = json.dumps(json.loads((tmp_path / "answer.json").read_text()))
    assert "Who are you?" in written
    assert "I am Ada." in written
    output = "".join(capfd.readouterr())
    assert "Sending HTTP Request" in output  # The library's own log was on.
    assert KEY not in output
    assert traces(tmp_path) == []


def test_refused_key(
    files: Path,
    server: OpenAIServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    server.answers.append(error_response(401, f"Incorrect API key provided: {KEY}"))
    assert converse(files, server) == 1
    output = "".join(capfd.readouterr())
    assert "OPENAI_API_KEY" in output
    assert KEY not in output
    assert traces(tmp_path) == []
