"""Tests of the configuration, metrics and documentation of the live server."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.live_sessions import FakePool, open_client


@pytest.fixture
def client(tmp_path):
    (tmp_path / "anna.png").write_bytes(b"")
    (tmp_path / "ben.MP4").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    settings = {"face": Path("photo.jpg"), "avatars": tmp_path, "voices": ("joe",)}
    with open_client(personas={"guide": "You are a guide."}, **settings) as client:
        yield client


def test_config_lists_choices_and_limits(client):
    config = client.get("/v1/config").json()
    assert config["avatars"] == [
        {"id": "default", "name": "photo", "kind": "photo"},
        {"id": "anna.png", "name": "anna", "kind": "photo"},
        {"id": "ben.MP4", "name": "ben", "kind": "video"},
    ]
    assert config["avatars"] == client.get("/v1/avatars").json()
    assert config["voices"] == client.get("/v1/voices").json() == ["joe"]
    assert config["emotions"][:2] == ["neutral", "happy"]
    assert config["personas"] == {"guide": "You are a guide."}
    assert config["limits"]["max_sessions"] == 2
    assert config["label"] == "AI generated"
    assert config["can_render_videos"] is False


def test_avatar_of_the_library_is_used():
    pool = FakePool()
    with open_client(pool, avatars=Path(__file__).parent, face=Path("photo.jpg")) as client:
        client.post("/v1/sessions", json={"avatar": "default"})
    assert pool.created[0].face == Path("photo.jpg")


def test_metrics_count_sessions_and_requests(client):
    client.post("/v1/sessions", json={})
    client.get("/v1/sessions/unknown")
    client.request("INVENTED", "/v1/sessions")
    text = client.get("/metrics").text
    assert "INVENTED" not in text
    assert "talkinghead_sessions 1.0" in text
    assert "talkinghead_max_sessions 2.0" in text
    assert 'talkinghead_videos{state="queued"} 0.0' in text
    created = '{method="POST",route="/v1/sessions",status="201"}'
    assert f"talkinghead_requests_total{created} 1.0" in text
    missing = '{method="GET",route="/v1/sessions/{session_id}",status="404"}'
    assert f"talkinghead_requests_total{missing} 1.0" in text


def test_every_route_is_documented(client):
    schema = client.get("/openapi.json").json()
    page = client.get("/docs").text
    operations = [
        (path, operation) for path, item in schema["paths"].items() for operation in item.values()
    ]
    assert len(operations) >= 20
    for path, operation in operations:
        assert operation["description"].endswith("."), path
        assert path in page
        if path != "/healthz":
            assert {"401", "429", "503"} <= set(operation["responses"]), path
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_pool_is_closed_with_the_server():
    pool = FakePool()
    with open_client(pool, face=Path("photo.jpg")) as client:
        assert pool.is_open
        client.post("/v1/sessions", json={})
    assert not pool.is_open
    assert not pool.sessions


def test_unknown_path_and_method_are_errors(client):
    for answer, kind in (
        (client.get("/nothing"), "not_found"),
        (client.put("/v1/sessions"), "method_not_allowed"),
    ):
        assert answer.json()["error"]["type"] == kind


def test_unexpected_error_has_no_details(client, monkeypatch):
    def fail(*_):
        raise RuntimeError("in /home/anna/secret.py")

    monkeypatch.setattr(client.app.state.pool, "sessions", SimpleNamespace(get=fail, values=list))
    answer = client.get("/v1/sessions/any")
    assert answer.status_code == 500
    assert "secret" not in answer.text
