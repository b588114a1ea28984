"""The live server prints an address that can be opened, and reports what prevents its start."""

import dataclasses

import pytest
from helpers.live_parts import tone_factory, write_face
from helpers.media_files import tone, write_wav

pytest.importorskip("fastapi", reason="needs the extra live")
from talkinghead.errors import CheckpointError, MediaError
from talkinghead.live.server.run_server import _address_of, run_server, server_settings
from talkinghead.live.session.session_pool import SessionPool
from talkinghead.types import AudioClip


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://localhost:80"),
        ("127.0.0.2", "http://127.0.0.2:80"),
        ("0.0.0.0", "http://0.0.0.0:80"),
        ("::1", "http://[::1]:80"),
    ],
)
def test_address_has_the_listening_host(host, expected):
    assert _address_of(host, 80) == expected


def fail_to_load():
    raise CheckpointError("checkpoint a.ckpt is truncated")


def test_models_that_cannot_be_loaded_are_an_error_without_traceback(tmp_path, caplog, capfd):
    factory = dataclasses.replace(tone_factory(), predictor=fail_to_load)
    settings = server_settings({"face": write_face(tmp_path), "port": 0}, factory)
    with pytest.raises(CheckpointError, match=r"a\.ckpt is truncated"):
        run_server(settings, SessionPool(factory))
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())


def test_face_without_picture_is_refused(tmp_path):
    speech = tmp_path / "speech.wav"
    write_wav(speech, AudioClip(tone(1, 16_000), 16_000))
    with pytest.raises(MediaError, match=r"speech\.wav has no picture"):
        server_settings({"face": speech}, tone_factory())
