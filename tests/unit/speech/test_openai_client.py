"""The OpenAI client with failing servers, and the secrecy of its key."""

import asyncio
import logging
import re
import time
import traceback
from threading import Event, Timer

import pytest
from helpers.openai_server import (
    CLOSE_CONNECTION,
    END,
    KEY,
    STALL,
    VALID,
    CannedResponse,
    chat_response,
    error_response,
    for_each_adapter,
    pcm_bytes,
    pcm_response,
    request_reply,
    request_speech,
    request_transcript,
)

from talkinghead.errors import DependencyError, SpeechError, TalkingHeadError, UsageError
from talkinghead.speech.llm.openai_llm import OpenAIChat

# Transcripts arrive as a whole, so only replies and speech can fail between two pieces.
for_each_stream = pytest.mark.parametrize(
    ("send", "respond", "sent", "first"),
    [
        (request_reply, chat_response, "One ", "One "),
        (request_speech, pcm_response, pcm_bytes(1), 1),
    ],
    ids=["reply", "speech"],
)


def collect_until_error(pieces):
    collected = []
    with pytest.raises(SpeechError) as failure:
        collected.extend(pieces)
    return collected, str(failure.value)


@for_each_adapter
def test_requests_are_retried_if_the_server_is_overloaded(send, server):
    response, expected = VALID[send]
    refusals = error_response(429, "slow down", retry_after="0.3"), error_response(503, "oh")
    server.responses += [*refusals, response]
    assert list(send(server)) == expected
    first, second, third = server.requests
    assert second.time_s - first.time_s >= 0.3
    assert len(first.body) == len(third.body)
    assert first.authorization == f"Bearer {KEY}"


def test_number_of_retries_is_limited(server):
    server.responses += [error_response(429, "slow down", retry_after="0.05")] * 5
    collected, message = collect_until_error(request_reply(server, max_retries=2))
    assert collected == []
    assert message == (
        f"{server.url[:-3]}: Error code: 429 - slow down: the server asks to wait "
        "(Retry-After: 0.05)"
    )
    assert len(server.requests) == 3


ONE = pcm_bytes(1)
OVERLOADED = b'data: {"error": {"message": "overloaded"}}\n\n'


@pytest.mark.parametrize(
    ("send", "response", "expected", "cause"),
    [
        (request_reply, error_response(429, "busy", "3600"), [], "429 - busy.*Retry-After: 3600"),
        (request_reply, error_response(400, "unknown voice"), [], "code: 400 - unknown voice"),
        (request_reply, error_response(404, "not found"), [], "code: 404 .* no model 'gpt'"),
        (request_transcript, pcm_response(STALL), [], "nothing arrived for 0.5 s"),
        (request_transcript, CannedResponse([b'{"text": "One']), [], "unexpected response"),
        (request_transcript, CannedResponse([b"[1, 2]"]), [], "unexpected response"),
        (request_transcript, CannedResponse([b"<html>"], "text/html"), [], "unexpected response"),
        (request_reply, chat_response(STALL), [], "nothing arrived for 0.5 s"),
        (request_reply, chat_response(b"data: 5\n\n"), [], "unexpected response"),
        (request_reply, chat_response(b'data: {"choices": [{}]}\n\n'), [], "unexpected response"),
        (request_reply, chat_response(b"data: \xff\n\n"), [], "unexpected response"),
        (request_reply, chat_response("One ", b"data: {\n\n"), ["One "], "unexpected response"),
        (request_reply, chat_response("One "), ["One "], "ended early"),
        (request_reply, chat_response("One ", OVERLOADED), ["One "], "overloaded"),
        (request_reply, chat_response("One ", CLOSE_CONNECTION), ["One "], "peer closed"),
        (request_reply, chat_response("One ", STALL), ["One "], "nothing arrived for 0.5 s"),
        (request_speech, CannedResponse([b'{"audio": 1}']), [], "unexpected response"),
        (request_speech, CannedResponse([b"<html>"], "text/html"), [], "unexpected response"),
        (request_speech, pcm_response(b"RIFF....WAVEfmt "), [], "instead of PCM"),
        (request_speech, pcm_response(b"ID3......"), [], "instead of PCM"),
        (request_speech, pcm_response(STALL), [], "nothing arrived for 0.5 s"),
        (request_speech, pcm_response(ONE, CLOSE_CONNECTION), [1], "peer closed"),
        (request_speech, pcm_response(ONE, STALL), [1], "nothing arrived for 0.5 s"),
    ],
)
def test_pieces_before_a_failure_are_yielded(send, response, expected, cause, server):
    server.responses.append(response)
    # Without a response the request would be repeated.
    options = {"max_retries": 0, "timeout_s": 0.5} if STALL in response.pieces else {}
    collected, message = collect_until_error(send(server, **options))
    assert collected == expected
    assert re.search(cause, message)
    assert len(server.requests) == 1


@for_each_stream
def test_pieces_are_yielded_as_they_arrive(send, respond, sent, first, server):
    received = Event()
    rest = ["two.", *END] if send is request_reply else [pcm_bytes(2)]
    server.responses.append(respond(sent, received, *rest))
    pieces = send(server)
    assert next(pieces) == first
    received.set()
    assert [first, *pieces] == VALID[send][1]


def test_error_names_unreachable_server(server):
    server.shutdown()
    server.server_close()
    _, message = collect_until_error(request_reply(server, max_retries=1))
    assert server.url[:-3] in message
    assert "check that it can be reached" in message


@for_each_adapter
@pytest.mark.parametrize(
    "response",
    [pcm_response(STALL), error_response(429, "slow down", retry_after="30")],
    ids=["stalled", "before a retry"],
)
def test_cancellation_ends_a_waiting_request(send, response, server):
    cancel = Event()
    server.responses.append(response)
    Timer(0.3, cancel.set).start()
    start_s = time.monotonic()
    assert [piece for piece in send(server, cancel) if piece] == []
    assert time.monotonic() - start_s < 10
    assert len(server.requests) == 1
    if response.status == 200:
        assert server.disconnected.wait(2)
    assert [piece for piece in send(server, cancel) if piece] == []
    assert len(server.requests) == 1


@for_each_stream
@pytest.mark.parametrize("end", ["cancel", "close"])
def test_cancelled_and_closed_streams_close_the_connection(send, respond, sent, first, end, server):
    cancel = Event()
    server.responses.append(respond(sent, STALL))
    pieces = send(server, cancel)
    assert next(pieces) == first
    if end == "cancel":
        cancel.set()
        assert list(pieces) == []
    else:
        pieces.close()
    assert server.disconnected.wait(2)


def test_requests_work_inside_an_event_loop(server):
    async def collect():
        return list(request_reply(server))

    server.responses.append(VALID[request_reply][0])
    assert asyncio.run(collect()) == VALID[request_reply][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"base_url": url}, "base_url=")
            for url in ("localhost:1/v1", "ftp://a/v1", "http://a:b")
        ),
        ({"timeout_s": 0}, "expected a time above 0"),
        ({"max_retries": -1}, "expected a time above 0"),
        ({"api_key_env": KEY}, "never the key itself"),
    ],
)
def test_invalid_options_are_refused(options, message, server):
    with pytest.raises(UsageError, match=message) as failure:
        OpenAIChat("gpt", **options)
    assert KEY not in "".join(traceback.format_exception(failure.value))


def test_missing_and_invalid_keys_raise_errors(server, monkeypatch):
    with pytest.raises(DependencyError, match="MY_KEY is not set"):
        OpenAIChat("gpt", api_key_env="MY_KEY")
    # Neither value can be sent in a header.
    for value in (f"{KEY}\nX: 1", f"{KEY}é"):
        monkeypatch.setenv("OPENAI_API_KEY", value)
        with pytest.raises(DependencyError, match="OPENAI_API_KEY holds") as failure:
            OpenAIChat("gpt", base_url=server.url)
        assert KEY not in "".join(traceback.format_exception(failure.value))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(DependencyError, match=r"OPENAI_API_KEY is not set.*works offline"):
        OpenAIChat("gpt", base_url=server.url)


@for_each_adapter
def test_error_for_refused_key_names_the_variable(send, server):
    server.responses.append(error_response(401, f"Incorrect API key provided: {KEY[:7]}***"))
    with pytest.raises(DependencyError, match=r"OPENAI_API_KEY.*works offline") as failure:
        list(send(server))
    assert KEY[:7] not in str(failure.value)
    server.responses.append(error_response(401, "no key"))
    with pytest.raises(DependencyError, match="name its variable in api_key_env"):
        list(send(server, api_key_env=None))
    assert KEY not in str(server.requests[1].authorization)


def failures_quoting_key(server):
    """Yield errors of every kind, from a server that repeats the key wherever it can."""
    responses = [
        *(error_response(status, f"no: {KEY}") for status in (400, 401, 404, 429, 500)),
        CannedResponse([b"not JSON: " + KEY.encode()]),
        chat_response("One ", f'data: {{"error": {{"message": "{KEY}"}}}}\n\n'.encode()),
        chat_response("One ", f"data: {KEY}\n\n".encode()),
        pcm_response(CLOSE_CONNECTION),
        pcm_response(KEY.encode(), STALL),
    ]
    for send in VALID:
        for response in responses:
            server.responses.append(response)
            # Only a response that stalls must time out: a request that is given up before it has
            # arrived on a busy machine would leave its response to the next request.
            options = {"timeout_s": 0.5} if STALL in response.pieces else {}
            try:
                list(send(server, max_retries=0, **options))
            except TalkingHeadError as error:
                yield error
            while server.responses:
                time.sleep(0.01)


def test_key_does_not_appear_in_errors_logs_or_reprs(server, caplog, capfd, monkeypatch):
    # A handler left by another test, with a closed stream, would print the current exception.
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    caplog.set_level(logging.DEBUG)
    texts = []
    for error in failures_quoting_key(server):
        texts += [repr(error), *traceback.format_exception(error)]
    assert len(texts) > 20
    server.responses += [error_response(500, KEY), VALID[request_reply][0]]
    list(request_reply(server))
    llm = OpenAIChat("gpt", base_url=server.url)
    texts += [repr(llm), repr(vars(llm)), repr(llm._client), caplog.text, *capfd.readouterr()]
    assert "Retrying request" in caplog.text
    assert "Sending HTTP Request" in caplog.text  # The library's debug log is included.
    assert not [text for text in texts if KEY in text]
    assert all(request.authorization == f"Bearer {KEY}" for request in server.requests)
