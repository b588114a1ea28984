"""A server that refuses, fails, hangs up, stalls or talks nonsense."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event, Thread
from typing import Any

import pytest
from helpers.openai_requests import (
    GOOD,
    Ask,
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
pytest.importorskip("faster_whisper", reason="its detector hears when somebody speaks")

# `transcribe` gives nothing before the end.
streaming = pytest.mark.parametrize(
    ("ask", "answer", "first"),
    [(request_reply, chat_response, "One "), (request_speech, pcm_response, 1)],
    ids=["think", "speak"],
)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with run_openai_server() as server:
        yield server


def beginning(first: str | int) -> str | bytes:
    return first if isinstance(first, str) else pcm_bytes(first)


def taken(pieces: Iterator[Any]) -> tuple[list[Any], str]:
    """What was given before it failed, and how it did."""
    given = []
    with pytest.raises(SpeechError) as failure:
        given.extend(pieces)
    return given, str(failure.value)


def cancel_once_asked(server: OpenAIServer, cancel: Event) -> None:
    def wait() -> None:
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.1)  # in which its refusal comes, where it has one
        cancel.set()

    Thread(target=wait, daemon=True).start()


@for_each_adapter
def test_key_and_model_are_sent(ask: Ask, server: OpenAIServer) -> None:
    answer, expected = GOOD[ask]
    server.answers.append(answer)
    assert list(ask(server)) == expected
    assert server.requests[0].authorization == f"Bearer {KEY}"


@for_each_adapter
def test_refused_key(ask: Ask, server: OpenAIServer) -> None:
    server.answers.append(error_response(401, f"Incorrect API key provided: {KEY[:7]}***"))
    with pytest.raises(DependencyError, match=r"OPENAI_API_KEY.*works offline") as failure:
        list(ask(server))
    assert KEY[:7] not in str(failure.value)
    assert len(server.requests) == 1


@for_each_adapter
def test_busy_server_is_asked_again_when_it_says(ask: Ask, server: OpenAIServer) -> None:
    answer, expected = GOOD[ask]
    server.answers += [error_response(429, "slow down", retry_after="0.3"), answer]
    assert list(ask(server)) == expected
    first, second = server.requests
    assert second.time_s - first.time_s >= 0.3
    assert len(first.body) == len(second.body)


def test_busy_server_may_name_a_date(server: OpenAIServer) -> None:
    date = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    told = format_datetime(date, usegmt=True)
    server.answers += [error_response(429, "slow down", retry_after=told), GOOD[request_reply][0]]
    assert list(request_reply(server)) == GOOD[request_reply][1]
    assert datetime.now(UTC) >= date


@for_each_adapter
def test_busy_server_is_not_asked_for_ever(ask: Ask, server: OpenAIServer) -> None:
    server.answers += [error_response(429, "slow down", retry_after="0.05")] * 5
    assert taken(ask(server, max_retries=2)) == (
        [],
        f"{server.url[:-3]}: Error code: 429 - slow down: it asks to be left alone for 0.05 s",
    )
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        error_response(429, "slow down", retry_after="3600"),
        error_response(429, "no credit", "insufficient_quota"),
        error_response(400, "unknown voice: bob"),
        error_response(404, "no such model"),
    ],
    ids=["an hour", "no credit", "bad request", "unknown model"],
)
@for_each_adapter
def test_what_no_other_try_helps(ask: Ask, answer: CannedResponse, server: OpenAIServer) -> None:
    server.answers.append(answer)
    given, words = taken(ask(server))
    assert not given
    assert f"Error code: {answer.status} - " in words
    assert len(server.requests) == 1


def test_unknown_model_is_named(server: OpenAIServer) -> None:
    server.answers.append(error_response(404, "no such model"))
    assert "no model 'gpt'" in taken(request_reply(server))[1]


@pytest.mark.parametrize(
    "broken", [error_response(500, "oh"), error_response(503, "oh"), pcm_response(CLOSE_CONNECTION)]
)
@for_each_adapter
def test_broken_server_is_asked_again(
    ask: Ask, broken: CannedResponse, server: OpenAIServer
) -> None:
    answer, expected = GOOD[ask]
    server.answers += [broken, broken, answer]
    assert list(ask(server)) == expected
    server.answers += [broken] * 2
    assert taken(ask(server, max_retries=1))[0] == []
    assert len(server.requests) == 5


@streaming
def test_pieces_come_as_they_are_sent(
    ask: Ask, answer: Callable[..., CannedResponse], first: Any, server: OpenAIServer
) -> None:
    seen = Event()
    rest = ["two.", *END] if ask is request_reply else [pcm_bytes(2)]
    server.answers.append(answer(beginning(first), seen, *rest))
    pieces = ask(server)
    assert next(pieces) == first
    seen.set()
    assert [first, *pieces] == GOOD[ask][1]


@streaming
def test_hang_up_loses_nothing_and_repeats_nothing(
    ask: Ask, answer: Callable[..., CannedResponse], first: Any, server: OpenAIServer
) -> None:
    server.answers += [answer(beginning(first), CLOSE_CONNECTION), GOOD[ask][0]]
    given, words = taken(ask(server))
    assert given == [first]
    assert "peer closed connection" in words
    assert len(server.requests) == 1


def test_reply_without_an_end_has_broken_off(server: OpenAIServer) -> None:
    server.answers.append(chat_response("One "))
    given, words = taken(request_reply(server))
    assert given == ["One "]
    assert "broke off" in words


def test_error_among_the_pieces(server: OpenAIServer) -> None:
    server.answers.append(chat_response("One ", b'data: {"error": {"message": "overloaded"}}\n\n'))
    given, words = taken(request_reply(server))
    assert given == ["One "]
    assert "overloaded" in words


@for_each_adapter
def test_nothing_comes(ask: Ask, server: OpenAIServer) -> None:
    server.answers.append(pcm_response(STALL))
    given, words = taken(ask(server, timeout_s=0.2))
    assert not given
    assert "nothing came for 0.2 s" in words
    assert server.left.wait(2)
    assert len(server.requests) == 1


@streaming
def test_nothing_more_comes(
    ask: Ask, answer: Callable[..., CannedResponse], first: Any, server: OpenAIServer
) -> None:
    server.answers.append(answer(beginning(first), STALL))
    given, words = taken(ask(server, timeout_s=0.5))
    assert given == [first]
    assert "nothing came for 0.5 s" in words


@pytest.mark.parametrize(
    ("ask", "answer"),
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
def test_nonsense(ask: Ask, answer: CannedResponse, server: OpenAIServer) -> None:
    server.answers.append(answer)
    given, words = taken(ask(server))
    assert not given
    assert "something else than expected" in words
    assert len(server.requests) == 1


def test_nothing_but_a_page(server: OpenAIServer) -> None:
    server.answers += [CannedResponse([b"<html>sign in</html>"], "text/html")] * 2
    assert "broke off" in taken(request_reply(server, max_retries=1))[1]


def test_nonsense_among_the_pieces(server: OpenAIServer) -> None:
    server.answers.append(chat_response("One ", b"data: {\n\n"))
    given, words = taken(request_reply(server))
    assert given == ["One "]
    assert "something else than expected" in words


@for_each_adapter
def test_no_server(ask: Ask, server: OpenAIServer) -> None:
    server.shutdown()
    server.server_close()
    given, words = taken(ask(server, max_retries=1))
    assert not given
    assert server.url[:-3] in words
    assert "check that it can be reached" in words


@for_each_adapter
def test_cancelled_while_nothing_comes(ask: Ask, server: OpenAIServer) -> None:
    cancel = Event()
    server.answers.append(pcm_response(STALL))
    cancel_once_asked(server, cancel)
    start_s = time.monotonic()
    assert [piece for piece in ask(server, cancel) if piece] == []
    assert time.monotonic() - start_s < 10
    assert server.left.wait(2)


@streaming
def test_cancelled_among_the_pieces(
    ask: Ask, answer: Callable[..., CannedResponse], first: Any, server: OpenAIServer
) -> None:
    cancel = Event()
    server.answers.append(answer(beginning(first), STALL))
    pieces = ask(server, cancel)
    assert next(pieces) == first
    cancel.set()
    assert list(pieces) == []
    assert server.left.wait(2)


@streaming
def test_left_among_the_pieces(
    ask: Ask, answer: Callable[..., CannedResponse], first: Any, server: OpenAIServer
) -> None:
    server.answers.append(answer(beginning(first), STALL))
    pieces = ask(server)
    assert next(pieces) == first
    pieces.close()
    assert server.left.wait(2)


@for_each_adapter
def test_cancelled_before_another_try(ask: Ask, server: OpenAIServer) -> None:
    cancel = Event()
    server.answers += [error_response(429, "slow down", retry_after="30")]
    cancel_once_asked(server, cancel)
    start_s = time.monotonic()
    assert [piece for piece in ask(server, cancel) if piece] == []
    assert time.monotonic() - start_s < 10
    assert len(server.requests) == 1


@for_each_adapter
def test_cancelled_before_it_began(ask: Ask, server: OpenAIServer) -> None:
    cancel = Event()
    cancel.set()
    assert [piece for piece in ask(server, cancel) if piece] == []
    assert not server.requests


def test_caller_may_have_an_event_loop(server: OpenAIServer) -> None:
    async def asked() -> list[str]:
        return list(request_reply(server))

    server.answers.append(GOOD[request_reply][0])
    assert asyncio.run(asked()) == GOOD[request_reply][1]


@pytest.mark.parametrize("module", ["openai", "httpx2"])
@for_each_adapter
def test_package_is_missing(
    ask: Ask, module: str, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=r"pip install 'talkinghead\[speech\]'.*offline"):
        list(ask(server))


@pytest.mark.parametrize("url", ["localhost:11434/v1", "ftp://there/v1", "http://", "http://a:b"])
def test_address_that_is_none(url: str, server: OpenAIServer) -> None:
    with pytest.raises(UsageError, match="base_url="):
        OpenAIChat("gpt", base_url=url)


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"max_retries": -1}])
def test_numbers_have_a_range(options: dict[str, Any], server: OpenAIServer) -> None:
    with pytest.raises(UsageError, match="expected a time above 0"):
        OpenAIChat("gpt", **options)
