"""The OpenAI client against servers that refuse, fail, disconnect, stall or respond wrongly."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import pytest
from helpers.openai_requests import (
    VALID,
    AdapterRequest,
    for_each_adapter,
    request_reply,
    request_speech,
    request_transcript,
)
from helpers.openai_server import (
    CLOSE_CONNECTION,
    END,
    KEY,
    STALL,
    CannedResponse,
    OpenAIServer,
    chat_response,
    error_response,
    pcm_bytes,
    pcm_response,
    run_openai_server,
)

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.speech.llm.openai_llm import OpenAIChat

pytest.importorskip("openai", reason="needs the extra speech")
pytest.importorskip("faster_whisper", reason="its detector finds the speech to send")

# Transcripts arrive as a whole, so only replies and speech can fail between two pieces.
for_each_stream = pytest.mark.parametrize(
    ("request_adapter", "respond", "first"),
    [(request_reply, chat_response, "One "), (request_speech, pcm_response, 1)],
    ids=["reply", "speech"],
)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with run_openai_server() as server:
        yield server


def first_piece(first: str | int) -> str | bytes:
    return first if isinstance(first, str) else pcm_bytes(first)


def collect_until_error(pieces: Iterator[Any]) -> tuple[list[Any], str]:
    collected = []
    with pytest.raises(SpeechError) as failure:
        collected.extend(pieces)
    return collected, str(failure.value)


def cancel_after_request(server: OpenAIServer, cancel: Event) -> None:
    def wait() -> None:
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.1)  # An error response arrives in the meantime.
        cancel.set()

    Thread(target=wait, daemon=True).start()


@for_each_adapter
def test_key_is_sent_and_result_returned(
    request_adapter: AdapterRequest, server: OpenAIServer
) -> None:
    response, expected = VALID[request_adapter]
    server.responses.append(response)
    assert list(request_adapter(server)) == expected
    assert server.requests[0].authorization == f"Bearer {KEY}"


def test_refused_key_names_variable_without_key(server: OpenAIServer) -> None:
    server.responses.append(error_response(401, f"Incorrect API key provided: {KEY[:7]}***"))
    with pytest.raises(DependencyError, match=r"OPENAI_API_KEY.*works offline") as failure:
        list(request_reply(server))
    assert KEY[:7] not in str(failure.value)
    assert len(server.requests) == 1


@for_each_adapter
def test_retry_waits_as_the_server_asks(
    request_adapter: AdapterRequest, server: OpenAIServer
) -> None:
    response, expected = VALID[request_adapter]
    server.responses += [error_response(429, "slow down", retry_after="0.3"), response]
    assert list(request_adapter(server)) == expected
    first, second = server.requests
    assert second.time_s - first.time_s >= 0.3
    assert len(first.body) == len(second.body)


def test_retries_end_at_their_maximum(server: OpenAIServer) -> None:
    server.responses += [error_response(429, "slow down", retry_after="0.05")] * 5
    assert collect_until_error(request_reply(server, max_retries=2)) == (
        [],
        f"{server.url[:-3]}: Error code: 429 - slow down: the server asks to wait "
        "(Retry-After: 0.05)",
    )
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "response",
    [
        error_response(429, "slow down", retry_after="3600"),
        error_response(400, "unknown voice: bob"),
        error_response(404, "no such model"),
    ],
    ids=["an hour", "bad request", "unknown model"],
)
def test_permanent_errors_are_not_retried(response: CannedResponse, server: OpenAIServer) -> None:
    server.responses.append(response)
    collected, message = collect_until_error(request_reply(server))
    assert not collected
    assert f"Error code: {response.status} - " in message
    assert ("no model 'gpt'" in message) == (response.status == 404)
    assert len(server.requests) == 1


@for_each_adapter
def test_server_errors_are_retried(request_adapter: AdapterRequest, server: OpenAIServer) -> None:
    response, expected = VALID[request_adapter]
    server.responses += [error_response(500, "oh"), error_response(503, "oh"), response]
    assert list(request_adapter(server)) == expected
    assert len(server.requests) == 3


@for_each_stream
def test_pieces_are_yielded_as_they_arrive(
    request_adapter: AdapterRequest,
    respond: Callable[..., CannedResponse],
    first: Any,
    server: OpenAIServer,
) -> None:
    received = Event()
    rest = ["two.", *END] if request_adapter is request_reply else [pcm_bytes(2)]
    server.responses.append(respond(first_piece(first), received, *rest))
    pieces = request_adapter(server)
    assert next(pieces) == first
    received.set()
    assert [first, *pieces] == VALID[request_adapter][1]


@for_each_stream
def test_disconnection_keeps_pieces_and_is_not_retried(
    request_adapter: AdapterRequest,
    respond: Callable[..., CannedResponse],
    first: Any,
    server: OpenAIServer,
) -> None:
    server.responses += [respond(first_piece(first), CLOSE_CONNECTION), VALID[request_adapter][0]]
    collected, message = collect_until_error(request_adapter(server))
    assert collected == [first]
    assert "peer closed connection" in message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], "ended early"),
        ([b'data: {"error": {"message": "overloaded"}}\n\n'], "overloaded"),
        ([b"data: {\n\n"], "unexpected response"),
    ],
    ids=["no end", "error event", "not JSON"],
)
def test_incomplete_reply_keeps_its_pieces(
    pieces: list[bytes], expected: str, server: OpenAIServer
) -> None:
    server.responses.append(chat_response("One ", *pieces))
    collected, message = collect_until_error(request_reply(server))
    assert collected == ["One "]
    assert expected in message


@for_each_adapter
def test_stalled_server_times_out(request_adapter: AdapterRequest, server: OpenAIServer) -> None:
    server.responses.append(pcm_response(STALL))
    collected, message = collect_until_error(request_adapter(server, timeout_s=0.2, max_retries=0))
    assert not collected
    assert "nothing arrived for 0.2 s" in message
    assert server.disconnected.wait(2)


@for_each_stream
def test_stall_between_pieces_times_out(
    request_adapter: AdapterRequest,
    respond: Callable[..., CannedResponse],
    first: Any,
    server: OpenAIServer,
) -> None:
    server.responses.append(respond(first_piece(first), STALL))
    collected, message = collect_until_error(request_adapter(server, timeout_s=0.5))
    assert collected == [first]
    assert "nothing arrived for 0.5 s" in message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("request_adapter", "response"),
    [
        (request_transcript, CannedResponse([b'{"text": "One'])),
        (request_transcript, CannedResponse([b"[1, 2]"])),
        (request_transcript, CannedResponse([b"<html>"], "text/html")),
        (request_reply, chat_response(b'data: {"choices": [\n\n')),
        (request_reply, chat_response(b"data: 5\n\n")),
        (request_reply, chat_response(b'data: {"choices": [{"index": 0}]}\n\n')),
        (request_reply, chat_response(b"data: \xff\n\n")),
        (request_speech, CannedResponse([b'{"audio": 1}'])),
        (request_speech, CannedResponse([b"<html>"], "text/html")),
    ],
)
def test_malformed_responses_are_errors(
    request_adapter: AdapterRequest, response: CannedResponse, server: OpenAIServer
) -> None:
    server.responses.append(response)
    collected, message = collect_until_error(request_adapter(server))
    assert not collected
    assert "unexpected response" in message
    assert len(server.requests) == 1


@for_each_adapter
def test_unreachable_server_is_named(request_adapter: AdapterRequest, server: OpenAIServer) -> None:
    server.shutdown()
    server.server_close()
    collected, message = collect_until_error(request_adapter(server, max_retries=1))
    assert not collected
    assert server.url[:-3] in message
    assert "check that it can be reached" in message


@pytest.mark.parametrize(
    "response",
    [pcm_response(STALL), error_response(429, "slow down", retry_after="30")],
    ids=["stalled", "before a retry"],
)
@for_each_adapter
def test_cancel_ends_a_waiting_request(
    request_adapter: AdapterRequest, response: CannedResponse, server: OpenAIServer
) -> None:
    cancel = Event()
    server.responses.append(response)
    cancel_after_request(server, cancel)
    start_s = time.monotonic()
    assert [piece for piece in request_adapter(server, cancel) if piece] == []
    assert time.monotonic() - start_s < 10
    assert len(server.requests) == 1
    if response.status == 200:
        assert server.disconnected.wait(2)


@pytest.mark.parametrize("end", ["cancel", "close"])
@for_each_stream
def test_ended_stream_disconnects(
    request_adapter: AdapterRequest,
    respond: Callable[..., CannedResponse],
    first: Any,
    end: str,
    server: OpenAIServer,
) -> None:
    cancel = Event()
    server.responses.append(respond(first_piece(first), STALL))
    pieces: Any = request_adapter(server, cancel)
    assert next(pieces) == first
    if end == "cancel":
        cancel.set()
        assert list(pieces) == []
    else:
        pieces.close()
    assert server.disconnected.wait(2)


@for_each_adapter
def test_cancelled_request_is_not_sent(
    request_adapter: AdapterRequest, server: OpenAIServer
) -> None:
    cancel = Event()
    cancel.set()
    assert [piece for piece in request_adapter(server, cancel) if piece] == []
    assert not server.requests


def test_requests_work_inside_an_event_loop(server: OpenAIServer) -> None:
    async def collect() -> list[str]:
        return list(request_reply(server))

    server.responses.append(VALID[request_reply][0])
    assert asyncio.run(collect()) == VALID[request_reply][1]


@pytest.mark.parametrize("module", ["openai", "httpx2"])
def test_missing_package_is_named(
    module: str, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[speech\]'.*offline"):
        list(request_reply(server))


@pytest.mark.parametrize("url", ["localhost:11434/v1", "ftp://there/v1", "http://", "http://a:b"])
def test_invalid_addresses_are_refused(url: str, server: OpenAIServer) -> None:
    with pytest.raises(UsageError, match="base_url="):
        OpenAIChat("gpt", base_url=url)


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"max_retries": -1}])
def test_numbers_out_of_range_are_refused(options: dict[str, Any], server: OpenAIServer) -> None:
    with pytest.raises(UsageError, match="expected a time above 0"):
        OpenAIChat("gpt", **options)
