"""Tests of the WebSocket stream of audio and images."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.live_sessions import WS_URL, FakePool, open_client, serve
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import connect

PCM = b"\1\2" * 160


@pytest.fixture
def open_stream(pool):
    @contextmanager
    def connect(query="", **settings):
        with (
            open_client(pool, face=Path("photo.jpg"), **settings) as client,
            client.websocket_connect(f"{WS_URL}/v1/stream{query}") as socket,
        ):
            start = socket.receive_json()
            assert (start["type"], start["id"]) == ("session", pool.created[0].id)
            assert socket.receive_json() == {"type": "state", "state": "idle"}
            yield socket

    return connect


@pytest.fixture
def stream(open_stream):
    with open_stream("?sample_rate=8000&quality=70", max_text_chars=10) as socket:
        yield socket


def receive_until(socket, kind):
    """Return the next JSON message of a type."""
    while True:
        text = socket.receive().get("text")
        if text and (message := json.loads(text))["type"] == kind:
            return message


def test_audio_is_returned_with_an_image(pool, stream):
    stream.send_bytes(PCM)
    frame = receive_until(stream, "frame")
    assert frame == {
        **{"type": "frame", "time_s": 1.0, "reply": 1, "is_reply_end": False},
        **{"num_samples": 160, "num_image_bytes": 6, "is_keyframe": True},
    }
    assert stream.receive_bytes() == PCM + b"\xff\xd8jpeg"
    assert pool.created[0].calls == [
        ("stream", {"image": "jpeg", "quality": 70, "sample_rate": 8000}),
        ("say_audio", {"pcm": PCM, "sample_rate": 8000}),
    ]


def test_start_message_states_the_format():
    with (
        open_client(face=Path("photo.jpg")) as client,
        client.websocket_connect(f"{WS_URL}/v1/stream?image=h264&sample_rate=8000") as socket,
    ):
        start = socket.receive_json()
    assert {name: start[name] for name in ("image", "quality", "sample_rate")} == {
        "image": "h264",
        "quality": 80,
        "sample_rate": 8000,
    }
    assert (start["width"], start["height"], start["fps"]) == (192, 160, 25.0)


def test_stream_without_images(open_stream):
    with open_stream("?image=none") as socket:
        socket.send_json({"type": "say", "text": "Hello."})
        assert receive_until(socket, "frame")["num_image_bytes"] == 0


def test_commands_reach_the_session(pool, stream):
    for command in ({"type": "end"}, {"type": "interrupt"}, {"type": "ask", "text": "Why?"}):
        stream.send_json(command)
    assert receive_until(stream, "transcript")["text"] == "You said: Why?"
    assert pool.created[0].ops()[1:] == ["say_end", "interrupt", "ask"]


@pytest.mark.parametrize(
    "message",
    [
        "not json",
        "[" * 5000,
        "[1]",
        '{"type": 5}',
        '{"type": "unknown"}',
        '{"type": "say"}',
        '{"type": "say", "text": 7}',
        r'{"type": "say", "text": "a\ud800"}',
        '{"type": "say", "text": "longer than ten"}',
    ],
)
def test_wrong_message_is_answered_with_an_error(pool, stream, message):
    stream.send_text(message)
    assert stream.receive_json()["error"]["type"] == "usage_error"
    stream.send_json({"type": "say", "text": "Go on."})
    assert receive_until(stream, "transcript")["text"] == "Go on."


def test_audio_with_half_a_sample_is_refused(pool, stream):
    stream.send_bytes(b"123")
    assert "16-bit" in stream.receive_json()["error"]["message"]
    assert pool.created[0].ops() == ["stream"]


def test_audio_too_far_ahead_is_refused_until_interrupted(pool, open_stream):
    with open_stream("?sample_rate=8000", max_audio_s=1) as socket:
        for _ in range(2):
            socket.send_bytes(bytes(16_000 * 3 // 4))
        assert "are queued" in receive_until(socket, "error")["error"]["message"]
        socket.send_json({"type": "interrupt"})
        socket.send_bytes(bytes(16_000))
        socket.send_text("end of test")
        receive_until(socket, "error")
    assert pool.created[0].ops() == ["stream", "say_audio", "interrupt", "say_audio"]


def test_large_message_closes_the_stream(pool, open_stream):
    with open_stream(max_message_bytes=1000) as socket:
        socket.send_bytes(bytes(1002))
        assert socket.receive_json()["error"]["type"] == "too_large"
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()
        assert not pool.sessions


def test_stream_without_messages_is_closed(pool, open_stream):
    with open_stream(socket_timeout_s=0.01) as socket:
        assert socket.receive_json()["error"]["message"] == "no message in 0.01 s"
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()
        assert not pool.sessions


def test_too_many_commands_are_refused(open_stream):
    with open_stream(requests_per_s=1) as socket:
        for _ in range(4):
            socket.send_json({"type": "end"})
        assert "too many messages" in socket.receive_json()["error"]["message"]


def test_session_ends_with_its_stream(pool, open_stream):
    with open_stream():
        assert len(pool.sessions) == 1
    assert not pool.sessions


def test_client_may_disconnect_before_its_session_is_created(caplog):
    class SlowPool(FakePool):
        async def create(self, settings, face):
            await asyncio.sleep(0.3)
            return await super().create(settings, face)

    pool = SlowPool()
    with serve(pool, face=Path("photo.jpg")) as port:
        with connect(f"ws://localhost:{port}/v1/stream"):
            pass
        while not pool.created or pool.sessions:
            time.sleep(0.01)
    assert "Traceback" not in caplog.text


def test_stream_ends_with_its_session(pool, stream):
    pool.created[0].is_lost = True
    stream.send_bytes(PCM)
    assert stream.receive_json()["error"]["type"] == "session_lost_error"
    with pytest.raises(WebSocketDisconnect):
        stream.receive_json()


def test_unknown_choice_refuses_the_stream():
    assert refused("?voice=nobody") == ("usage_error", 1008)


def test_full_pool_refuses_the_stream():
    assert refused("", FakePool(0)) == ("pool_full_error", 1013)


def refused(query, pool=None):
    """Return the type of the error, and the code with which the server closes the stream."""
    with (
        open_client(pool, face=Path("photo.jpg")) as client,
        client.websocket_connect(f"{WS_URL}/v1/stream{query}") as socket,
    ):
        error = socket.receive_json()["error"]
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    return error["type"], closed.value.code


def test_wrong_format_refuses_the_stream():
    with (
        open_client(face=Path("photo.jpg")) as client,
        pytest.raises(WebSocketDenialResponse) as denied,
    ):
        client.websocket_connect(f"{WS_URL}/v1/stream?sample_rate=4").__enter__()
    assert denied.value.status_code == 422
