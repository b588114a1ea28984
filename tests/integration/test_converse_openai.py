"""A whole conversation by OpenAI's API, whose files and output never hold the key."""

import json

import numpy as np
import pytest
from helpers.openai_server import (
    END,
    KEY,
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
pytest.importorskip("faster_whisper", reason="its detector finds the speech to send")
pytest.importorskip("pyloudnorm", reason="needs the extra speech")

GROUPS = ("stt", "llm", "tts")


@pytest.fixture
def server():
    with run_openai_server() as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("inputs"))


def converse(files, server):
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


def files_with_key(folder):
    return [str(p) for p in folder.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_conversation_writes_video_without_key(files, server, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    samples = read_audio(DEMO_SPEECH, 24_000).samples[:24_000]
    speech = np.rint(samples * 32_767).astype("<i2").tobytes()
    server.responses += [
        transcript_response("Who are you?"),
        error_response(500, f"oh: {KEY}"),
        chat_response("I am ", "Ada. ", "And you?", *END),
        pcm_response(speech[:9999], speech[9999:]),
        pcm_response(speech),
    ]
    assert converse(files, server) == 0
    transcription, _, reply, *speech_requests = server.requests
    assert transcription.path.endswith("/transcriptions")
    assert reply.json["messages"][-1] == {"role": "user", "content": "Who are you?"}
    assert [request.json["input"] for request in speech_requests] == ["I am Ada.", "And you?"]
    assert probe(tmp_path / "answer.mp4").duration_s > 2
    written = json.dumps(json.loads((tmp_path / "answer.json").read_text()))
    assert "Who are you?" in written
    assert "I am Ada." in written
    output = "".join(capfd.readouterr())
    assert "Sending HTTP Request" in output  # The library's debug log is included.
    assert KEY not in output
    assert files_with_key(tmp_path) == []


def test_refused_key_is_an_error(files, server, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    server.responses.append(error_response(401, f"Incorrect API key provided: {KEY}"))
    assert converse(files, server) == 1
    output = "".join(capfd.readouterr())
    assert "OPENAI_API_KEY" in output
    assert KEY not in output
    assert files_with_key(tmp_path) == []
