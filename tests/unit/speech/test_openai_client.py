"""The OpenAI client against servers that refuse, fail, disconnect, stall or respond wrongly."""

import asyncio
import sys
import time
from threading import Event, Thread
from typing import Any

import pytest
from helpers.openai_requests import (
    VALID,
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
    chat_response,
    error_response,
    pcm_bytes,
    pcm_response,
)

from talkinghead.errors import DependencyError, SpeechError, UsageError
from talkinghead.speech.llm.openai_llm import OpenAIChat

# Transcripts arrive as a whole, so only replies and speech can fail between two pieces.
for_each_stream = pytest.mark.parametrize(
    ("send", "respond", "first"),
    [(request_reply, chat_response, "One "), (request_speech, pcm_response, 1)],
    ids=["reply", "speech"],
)


def first_piece(first):
    return first if isinstance(first, str) else pcm_bytes(first)


def collect_until_error(pieces):
    collected = []
    with pytest.raises(SpeechError) as failure:
        collected.extend(pieces)
    return collected, str(failure.value)


def cancel_after_request(server, cancel):
    def wait():
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.1)  # An error response arrives in the meantime.
        cancel.set()

    Thread(target=wait, daemon=True).start()


@for_each_adapter
def test_key_is_sent_and_result_returned(send, server):
    response, expected = VALID[send]
    server.responses.append(response)
    assert list(send(server)) == expected
    assert server.requests[0].authorization == f"Bearer {KEY}"


def test_refused_key_names_variable_without_key(server):
    server.responses.append(error_response(401, f"Incorrect API key provided: {KEY[:7]}***"))
    with pytest.raises(DependencyError, match=r"OPENAI_API_KEY.*works offline") as failure:
        list(request_reply(server))
    assert KEY[:7] not in str(failure.value)
    assert len(server.requests) == 1


@for_each_adapter
def test_retry_waits_as_the_server_asks(send, server):
    response, expected = VALID[send]
    server.responses += [error_response(429, "slow down", retry_after="0.3"), response]
    assert list(send(server)) == expected
    first, second = server.requests
    assert second.time_s - first.time_s >= 0.3
    assert len(first.body) == len(second.body)


def test_retries_end_at_their_maximum(server):
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
def test_permanent_errors_are_not_retried(response, server):
    server.responses.append(response)
    collected, message = collect_until_error(request_reply(server))
    assert not collected
    assert f"Error code: {response.status} - " in message
    assert ("no model 'gpt'" in message) == (response.status == 404)
    assert len(server.requests) == 1


@for_each_adapter
def test_server_errors_are_retried(send, server):
    response, expected = VALID[send]
    server.responses += [error_response(500, "oh"), error_response(503, "oh"), response]
    assert list(send(server)) == expected
    assert len(server.requests) == 3


@for_each_stream
def test_pieces_are_yielded_as_they_arrive(send, respond, first, server):
    received = Event()
    rest = ["two.", *END] if send is request_reply else [pcm_bytes(2)]
    server.responses.append(respond(first_piece(first), received, *rest))
    pieces = send(server)
    assert next(pieces) == first
    received.set()
    assert [first, *pieces] == VALID[send][1]


@for_each_stream
def test_disconnection_keeps_pieces_and_is_not_retried(send, respond, first, server):
    server.responses += [respond(first_piece(first), CLOSE_CONNECTION), VALID[send][0]]
    collected, message = collect_until_error(send(server))
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
def test_incomplete_reply_keeps_its_pieces(pieces, expected, server):
    server.responses.append(chat_response("One ", *pieces))
    collected, message = collect_until_error(request_reply(server))
    assert collected == ["One "]
    assert expected in message


@for_each_adapter
def test_stalled_server_times_out(send, server):
    server.responses.append(pcm_response(STALL))
    collected, message = collect_until_error(send(server, timeout_s=0.2, max_retries=0))
    assert not collected
    assert "nothing arrived for 0.2 s" in message
    assert server.disconnected.wait(2)


@for_each_stream
def test_stall_between_pieces_times_out(send, respond, first, server):
    server.responses.append(respond(first_piece(first), STALL))
    collected, message = collect_until_error(send(server, timeout_s=0.5))
    assert collected == [first]
    assert "nothing arrived for 0.5 s" in message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("send", "response"),
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
def test_malformed_responses_are_errors(send, response, server):
    server.responses.append(response)
    collected, message = collect_until_error(send(server))
    assert not collected
    assert "unexpected response" in message
    assert len(server.requests) == 1


@for_each_adapter
def test_unreachable_server_is_named(send, server):
    server.shutdown()
    server.server_close()
    collected, message = collect_until_error(send(server, max_retries=1))
    assert not collected
    assert server.url[:-3] in message
    assert "check that it can be reached" in message


@pytest.mark.parametrize(
    "response",
    [pcm_response(STALL), error_response(429, "slow down", retry_after="30")],
    ids=["stalled", "before a retry"],
)
@for_each_adapter
def test_cancel_ends_a_waiting_request(send, response, server):
    cancel = Event()
    server.responses.append(response)
    cancel_after_request(server, cancel)
    start_s = time.monotonic()
    assert [piece for piece in send(server, cancel) if piece] == []
    assert time.monotonic() - start_s < 10
    assert len(server.requests) == 1
    if response.status == 200:
        assert server.disconnected.wait(2)


@pytest.mark.parametrize("end", ["cancel", "close"])
@for_each_stream
def test_ended_stream_disconnects(send, respond, first, end, server):
    cancel = Event()
    server.responses.append(respond(first_piece(first), STALL))
    pieces: Any = send(server, cancel)
    assert next(pieces) == first
    if end == "cancel":
        cancel.set()
        assert list(pieces) == []
    else:
        pieces.close()
    assert server.disconnected.wait(2)


@for_each_adapter
def test_cancelled_request_is_not_sent(send, server):
    cancel = Event()
    cancel.set()
    assert [piece for piece in send(server, cancel) if piece] == []
    assert not server.requests


def test_requests_work_inside_an_event_loop(server):
    async def collect():
        return list(request_reply(server))

    server.responses.append(VALID[request_reply][0])
    assert asyncio.run(collect()) == VALID[request_reply][1]


@pytest.mark.parametrize("module", ["openai", "httpx2"])
def test_missing_package_is_named(module, server, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[speech\]'.*offline"):
        list(request_reply(server))


@pytest.mark.parametrize("url", ["localhost:11434/v1", "ftp://there/v1", "http://", "http://a:b"])
def test_invalid_addresses_are_refused(url, server):
    with pytest.raises(UsageError, match="base_url="):
        OpenAIChat("gpt", base_url=url)


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"max_retries": -1}])
def test_numbers_out_of_range_are_refused(options, server):
    with pytest.raises(UsageError, match="expected a time above 0"):
        OpenAIChat("gpt", **options)
