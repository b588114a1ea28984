"""Tests of the access control of the live server."""

from __future__ import annotations

import base64
import logging

import httpx
import pytest
from helpers.live_sessions import WS_URL, FakePool, open_client, serve
from starlette.testclient import WebSocketDenialResponse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from talkinghead.errors import UsageError
from talkinghead.live.server.access import RateLimiter
from talkinghead.live.server.server_settings import ServerSettings

TOKEN = "a-secret-token"
PROTECTED = ["/v1/config", "/v1/voices", "/v1/avatars", "/metrics", "/docs", "/openapi.json"]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_token_is_required():
    with open_client(token=TOKEN) as client:
        for path in PROTECTED:
            refused = client.get(path)
            assert refused.status_code == 401, path
            assert refused.json()["error"]["type"] == "unauthorized"
            assert client.get(path, headers=bearer(TOKEN)).status_code == 200, path
        assert client.get("/v1/config", headers=bearer("wrong")).status_code == 401
        assert client.post("/v1/sessions", json={}).status_code == 401
        # A token in the URL would be stored in histories and logs.
        assert client.get(f"/v1/config?token={TOKEN}").status_code == 401


def test_health_and_page_need_no_token():
    with open_client(token=TOKEN) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/").status_code == 200
        assert client.get("/static/app.js").status_code == 200


@pytest.mark.parametrize("path", ["/static/../server_settings.py", "/static/%2e%2e/app.py"])
def test_files_outside_the_page_are_not_served(path):
    with open_client() as client:
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("token", [TOKEN, "odd ~?>/+="])
def test_websocket_takes_the_token_from_a_header_or_a_subprotocol(token):
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    offer = ["talkinghead", f"talkinghead.token.{encoded}"]
    with open_client(FakePool(10), token=token, face="photo.jpg") as client:
        with client.websocket_connect(f"{WS_URL}/v1/stream", subprotocols=offer) as socket:
            assert socket.accepted_subprotocol == "talkinghead"
            assert socket.receive_json()["type"] == "session"
        with client.websocket_connect(f"{WS_URL}/v1/stream", headers=bearer(token)) as socket:
            assert socket.accepted_subprotocol is None


def test_realtime_takes_the_token_of_openai_clients_in_browsers():
    offer = ["realtime", f"openai-insecure-api-key.{TOKEN}"]
    with (
        open_client(token=TOKEN, face="photo.jpg") as client,
        client.websocket_connect(f"{WS_URL}/v1/realtime", subprotocols=offer) as socket,
    ):
        assert socket.accepted_subprotocol == "realtime"


@pytest.mark.parametrize("offer", [[], ["talkinghead"], ["talkinghead.token.%"], [TOKEN]])
@pytest.mark.parametrize("query", ["", f"?token={TOKEN}"])
def test_websocket_without_the_token_is_refused(offer, query):
    with (
        open_client(token=TOKEN, face="photo.jpg") as client,
        pytest.raises(WebSocketDenialResponse) as refused,
    ):
        client.websocket_connect(f"{WS_URL}/v1/stream{query}", subprotocols=offer).__enter__()
    assert refused.value.status_code == 401


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:9999", "null"])
def test_requests_of_other_web_sites_are_refused(origin):
    pool = FakePool()
    with open_client(pool, face="photo.jpg") as client:
        headers = {"Origin": origin}
        assert client.post("/v1/sessions", json={}, headers=headers).status_code == 403
        with pytest.raises(WebSocketDenialResponse):
            client.websocket_connect(f"{WS_URL}/v1/stream", headers=headers).__enter__()
        assert not pool.created
        own = {"Origin": "http://localhost:8000"}
        assert client.post("/v1/sessions", json={}, headers=own).status_code == 201


def test_cors_is_disabled_by_default():
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    with open_client() as client:
        assert (
            "Access-Control-Allow-Origin"
            not in client.options("/v1/sessions", headers=preflight).headers
        )
    with open_client(face="photo.jpg", cors_origins=("https://app.example",)) as client:
        assert client.options("/v1/sessions", headers=preflight).status_code == 200
        created = client.post("/v1/sessions", json={}, headers={"Origin": "https://app.example"})
        assert created.status_code == 201
        assert created.headers["Access-Control-Allow-Origin"] == "https://app.example"


def test_local_server_refuses_other_host_names():
    with open_client(allowed_hosts=("faces.example",)) as client:
        for host, status in (
            ("localhost:8000", 200),
            ("127.0.0.1", 200),
            ("[::1]:8000", 200),
            ("faces.example", 200),
            ("rebound.example:8000", 403),
            ("[", 403),
        ):
            assert client.get("/v1/voices", headers={"Host": host}).status_code == status, host


def test_server_for_other_machines_needs_a_token():
    with pytest.raises(UsageError, match="give token="):
        ServerSettings(host="0.0.0.0")
    assert not ServerSettings(host="0.0.0.0", token=TOKEN).is_local
    assert TOKEN not in repr(ServerSettings(token=TOKEN))


def test_client_above_the_request_rate_is_refused():
    with open_client(requests_per_s=1) as client:
        answers = [client.get("/v1/voices") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert answers[-1].json()["error"]["type"] == "rate_limited"


def test_creations_have_a_separate_limit():
    with open_client(FakePool(10), face="photo.jpg", creations_per_min=3) as client:
        assert client.post("/v1/sessions", json={}).status_code == 201
        assert client.post("/v1/sessions", json={}).status_code == 429
        assert client.get("/v1/voices").status_code == 200


def test_rate_limiter_counts_each_client(monkeypatch):
    now_s = 100.0
    monkeypatch.setattr("talkinghead.live.server.access.time.monotonic", lambda: now_s)
    limiter = RateLimiter(per_s=2, burst=3)
    assert [limiter.wait_s("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limiter.wait_s("b") == 0
    now_s += 0.5
    assert [limiter.wait_s("a") for _ in range(2)] == [0, 0.5]


def test_large_bodies_are_refused():
    with open_client(face="photo.jpg", max_json_bytes=1000, max_upload_bytes=5000) as client:
        refused = client.post("/v1/sessions", content=b"x" * 1001)
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            413,
            "the request is larger than 1,000 bytes",
        )
        for path in ("/v1/avatars", "/v1/videos"):
            files = {"file": ("face.jpg", b"x" * 200_000)}
            assert client.post(path, files=files).status_code == 413, path


def test_two_files_may_each_have_the_maximum_size():
    with open_client(face="photo.jpg", max_upload_bytes=200_000) as client:
        files = {name: (f"{name}.wav", b"x" * 199_000) for name in ("face", "audio")}
        assert client.post("/v1/videos", files=files).status_code != 413
        refused = client.post("/v1/videos", files={"face": ("face.jpg", b"x" * 510_000)})
        assert refused.status_code == 413


def test_security_headers_are_sent_with_every_response():
    with open_client(token=TOKEN) as client:
        for path in ("/", "/healthz", "/v1/config", "/nothing"):
            headers = client.get(path).headers
            assert headers["Content-Security-Policy"].startswith("default-src 'self';")
            assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"


def test_head_requests_are_answered_as_get_requests_without_a_body():
    with serve(face="photo.jpg") as port:
        for path in ("/", "/healthz", "/v1/config", "/v1/videos/none"):
            address = f"http://localhost:{port}{path}"
            got, head = httpx.get(address), httpx.head(address)
            assert head.status_code == got.status_code
            assert head.headers["Content-Length"] == str(len(got.content))
            assert head.content == b""


def test_token_is_not_logged(caplog):
    caplog.set_level(logging.DEBUG)
    with serve(token=TOKEN, face="photo.jpg") as port:
        address = f"ws://localhost:{port}/v1/stream"
        offer = ["talkinghead", "openai-insecure-api-key." + TOKEN]
        for subprotocols, headers in ((offer, None), (None, bearer(TOKEN))):
            with connect(address, subprotocols=subprotocols, additional_headers=headers) as socket:
                socket.recv()
        with pytest.raises(InvalidStatus):
            connect(address, subprotocols=[offer[0], offer[1] + "x"])
    ours = [record for record in caplog.records if not record.name.startswith("websockets")]
    text = " ".join(record.getMessage() for record in ours)
    assert "/v1/stream" in text
    assert TOKEN not in text
