"""Tests of the routes of sessions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from helpers.live_sessions import WS_URL, open_client, wav_bytes
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from talkinghead.live.server.routes.sessions_api import run_until_first

FACE = Path("photo.jpg")


@pytest.fixture
def client(pool):
    settings = {"face": FACE, "voices": ("joe",), "llms": ("llama",), "max_text_chars": 100}
    with open_client(pool, personas={"guide": "You are a guide."}, **settings) as client:
        yield client


@pytest.fixture
def session(client, pool):
    client.post("/v1/sessions", json={}).raise_for_status()
    return pool.created[0]


def test_create_session_with_choices(client, pool):
    created = client.post("/v1/sessions", json={"voice": "joe", "persona": "guide"})
    assert created.status_code == 201
    assert created.json() == {"id": pool.created[0].id, "expires_in_s": 3600.0}
    assert pool.created[0].face == FACE
    assert pool.created[0].choices["voice"] == "joe"
    assert pool.created[0].choices["persona"] == "You are a guide."


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"voice": "nobody"}, "voice: unknown; choose one of joe"),
        ({"llm": "nothing"}, "llm: unknown; choose one of llama"),
        ({"avatar": "../../etc/passwd"}, "avatar: unknown or expired"),
        ({"persona": "x" * 4001}, "persona: String should have at most 4000"),
        ({"emotion": "hapy"}, "hapy is not an emotion: did you mean happy?"),
        (
            {"emotion": "happy", "intensity": 2},
            "intensity: Input should be less than",
        ),
        ({"pose": [1, 2]}, "pose"),
        ({"pose": [90, 0, 0]}, "pose"),
        ({"face": "a.jpg"}, "face: Extra inputs are not permitted"),
    ],
)
def test_wrong_choice_is_refused(client, pool, choice, message):
    refused = client.post("/v1/sessions", json=choice)
    assert refused.status_code == 422
    assert message in refused.json()["error"]["message"]
    assert not pool.created


def test_expression_is_chosen_and_changed(client, pool):
    face = {"emotion": "happy", "intensity": 0.5, "pose": [5, 0, -3]}
    client.post("/v1/sessions", json=face).raise_for_status()
    session = pool.created[0]
    assert face.items() <= {**session.choices, "pose": [*session.choices["pose"]]}.items()
    url = f"/v1/sessions/{session.id}"
    for change in ({"pose": [0, 1, 2]}, {"emotion": "sad"}, {"intensity": 0.2}):
        assert client.patch(url, json=change).status_code == 204
        op, arguments = session.calls[-1]
        assert (op, {k: list(v) if k == "pose" else v for k, v in arguments.items()}) == (
            "update",
            change,
        )


def test_full_pool_states_when_to_retry(client, pool):
    for _ in range(pool.options.max_sessions):
        assert client.post("/v1/sessions", json={}).status_code == 201
    refused = client.post("/v1/sessions", json={})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "42")
    assert refused.json()["error"]["type"] == "pool_full_error"
    client.delete(f"/v1/sessions/{pool.created[0].id}")
    assert client.post("/v1/sessions", json={}).status_code == 201


def test_state_update_and_end_of_session(client, pool, session):
    url = f"/v1/sessions/{session.id}"
    state = client.get(url).json()
    assert state == {"id": session.id, "state": "idle", "stats": session._stats()}
    assert client.patch(url, json={"voice": "joe"}).status_code == 204
    assert session.calls[-1] == ("update", {"voice": "joe"})
    assert client.delete(url).status_code == 204
    missing = client.get(url)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found")


def test_lost_session_returns_status_410(client, session):
    session.is_lost = True
    lost = client.post(f"/v1/sessions/{session.id}/interrupt")
    assert (lost.status_code, lost.json()["error"]["type"]) == (410, "session_lost_error")


def test_session_that_does_not_respond_is_unavailable(pool, monkeypatch):
    async def never(*_, **__):
        await asyncio.sleep(60)

    with open_client(pool, face=FACE, call_timeout_s=0.01) as client:
        client.post("/v1/sessions", json={})
        monkeypatch.setattr(pool.created[0], "call", never)
        late = client.get(f"/v1/sessions/{pool.created[0].id}")
    assert (late.status_code, late.json()["error"]["type"]) == (503, "timeout")


def test_offer_is_answered(client, session):
    url = f"/v1/sessions/{session.id}/offer"
    answer = client.post(url, json={"sdp": "v=0", "type": "offer"})
    assert answer.json() == {"sdp": "v=0 answer", "type": "answer"}
    refused = client.post(url, json={"sdp": "nonsense"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (422, "usage_error")


def test_say_ask_and_interrupt(client, session):
    url = f"/v1/sessions/{session.id}"
    assert client.post(f"{url}/say", json={"text": "Hello."}).json() == {"turn": 1}
    assert client.post(f"{url}/ask", json={"text": "Why?"}).status_code == 202
    assert client.post(f"{url}/interrupt").status_code == 204
    assert session.ops() == ["say", "ask", "interrupt"]


@pytest.mark.parametrize("channels", [1, 2])
def test_say_audio_is_mixed_to_mono(client, session, channels):
    said = client.post(
        f"/v1/sessions/{session.id}/say",
        content=wav_bytes(0.1, 8000, channels),
        headers={"Content-Type": "audio/wav"},
    )
    assert said.status_code == 202
    assert session.calls[0] == (
        "say_audio",
        {"pcm": wav_bytes(0.1, 8000)[44:], "sample_rate": 8000, "is_complete": True},
    )
    assert session.ops() == ["say_audio"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "audio/wav", 422),
        (b"RIFF0000WAVEfmt ", "audio/wav", 422),
        (wav_bytes(width=1), "audio/wav", 422),
        (wav_bytes(0), "audio/wav", 422),
        # A chunk whose size points before the start of the file.
        (wav_bytes()[:16] + b"\xff" * 4 + wav_bytes()[20:], "audio/wav", 422),
        (wav_bytes(), "application/octet-stream", 415),
        (b"{", "application/json", 422),
        (b'{"text": ""}', "application/json", 422),
        (b'{"text": "%s"}' % (b"x" * 101), "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
    ],
)
def test_say_refuses_wrong_bodies(client, session, body, kind, status):
    url = f"/v1/sessions/{session.id}/say"
    refused = client.post(url, content=body, headers={"Content-Type": kind})
    assert refused.status_code == status
    assert refused.json()["error"]["message"]
    assert not session.calls


def test_recording_is_a_file(client, pool, session, tmp_path):
    url = f"/v1/sessions/{session.id}/recording"
    assert client.get(url).status_code == 404
    video = tmp_path / "answer.mp4"
    video.write_bytes(b"video")
    pool.recording = str(video)
    answer = client.get(url)
    assert (answer.content, answer.headers["Content-Type"]) == (b"video", "video/mp4")
    assert "answer.mp4" in answer.headers["Content-Disposition"]


def test_recording_may_take_longer_than_other_answers(pool, tmp_path):
    video = tmp_path / "answer.mp4"
    video.write_bytes(b"video")
    pool.recording = str(video)
    with open_client(pool, face=FACE, call_timeout_s=0.05) as client:
        url = f"/v1/sessions/{client.post('/v1/sessions', json={}).json()['id']}"
        session = pool.created[0]
        answer_at_once = session.call

        async def answer_late(op, **arguments):
            await asyncio.sleep(0.3)
            return await answer_at_once(op, **arguments)

        session.call = answer_late
        assert client.get(f"{url}/recording").content == b"video"
        assert client.get(url).json()["error"]["type"] == "timeout"


def test_events_are_sent_until_the_session_ends(client, session):
    url = f"/v1/sessions/{session.id}"
    with client.websocket_connect(f"{WS_URL}{url}/events") as socket:
        assert socket.receive_json() == {"type": "state", "state": "idle"}
        client.post(f"{url}/say", json={"text": "Hello."})
        kinds = [socket.receive_json()["type"] for _ in range(4)]
        assert kinds == ["state", "transcript", "reply_end", "state"]
        client.delete(url)
        assert socket.receive_json() == {"type": "closed", "reason": "deleted"}
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()


def test_events_of_unknown_session_are_refused(client):
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect(f"{WS_URL}/v1/sessions/unknown/events"),
    ):
        pass
    assert refused.value.status_code == 404
    assert refused.value.json()["error"]["type"] == "not_found"


def test_no_error_if_several_coroutines_notice_the_end_of_a_connection():
    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        if message["type"] == "websocket.send":
            raise OSError("the client is gone")

    async def use_websocket():
        websocket = WebSocket({"type": "websocket"}, receive, send)
        await websocket.accept()
        await run_until_first(websocket, websocket.send_text("a"), websocket.send_text("b"))

    asyncio.run(use_websocket())


def test_errors_of_coroutines_are_raised():
    async def fail():
        raise RuntimeError("a fault")

    async def use_websocket():
        websocket = WebSocket({"type": "websocket"}, None, None)
        await run_until_first(websocket, fail(), asyncio.sleep(10))

    with pytest.raises(RuntimeError, match="a fault"):
        asyncio.run(use_websocket())
