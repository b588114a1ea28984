"""The key comes from the environment, and nobody sees it but the server."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import pytest
from helpers.openai_requests import GOOD, HELLO, Ask, for_each_adapter, request_reply
from helpers.openai_server import (
    CLOSE_CONNECTION,
    KEY,
    STALL,
    CannedResponse,
    OpenAIServer,
    chat_response,
    error_response,
    pcm_response,
    run_openai_server,
)
from hydra.utils import instantiate
from omegaconf import OmegaConf

from talkinghead.errors import DependencyError, TalkingHeadError, UsageError
from talkinghead.paths import conf_dir
from talkinghead.speech.llm.openai_llm import OpenAIChat

pytest.importorskip("openai", reason="needs the extra speech")
pytest.importorskip("faster_whisper", reason="its detector hears when somebody speaks")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with run_openai_server() as server:
        yield server


@for_each_adapter
def test_missing_key(ask: Ask, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(DependencyError, match=r"OPENAI_API_KEY is not set.*works offline"):
        list(ask(server))
    with pytest.raises(DependencyError, match="MY_KEY is not set"):
        list(ask(server, api_key_env="MY_KEY"))


@for_each_adapter
def test_server_without_keys_is_told_none(ask: Ask, server: OpenAIServer) -> None:
    answer, expected = GOOD[ask]
    server.answers.append(answer)
    assert list(ask(server, api_key_env=None)) == expected
    assert KEY not in str(server.requests[0].authorization)


def test_server_wants_a_key_after_all(server: OpenAIServer) -> None:
    server.answers.append(error_response(401, "no key"))
    with pytest.raises(DependencyError, match="name its variable in api_key_env"):
        list(request_reply(server, api_key_env=None))


def everything_that_fails(server: OpenAIServer) -> Iterator[TalkingHeadError]:
    """Errors of every kind, from a server that repeats the key wherever it can."""
    answers = [
        *(error_response(status, f"no: {KEY}") for status in (400, 401, 404, 429, 500)),
        CannedResponse([b"not JSON: " + KEY.encode()]),
        chat_response("One ", f'data: {{"error": {{"message": "{KEY}"}}}}\n\n'.encode()),
        chat_response("One ", f"data: {KEY}\n\n".encode()),
        pcm_response(CLOSE_CONNECTION),
        pcm_response(KEY.encode(), STALL),
    ]
    for ask in GOOD:
        for answer in answers:
            server.answers.append(answer)
            try:
                list(ask(server, max_retries=0, timeout_s=0.2))
            except TalkingHeadError as error:
                yield error


def test_key_is_nowhere(
    server: OpenAIServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A handler that another test left, its stream closed, would print the error being handled.
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    caplog.set_level(logging.DEBUG)
    seen = []
    for error in everything_that_fails(server):
        seen += [repr(error), *traceback.format_exception(error)]
    assert len(seen) > 20
    server.answers += [error_response(500, KEY), GOOD[request_reply][0]]
    llm = OpenAIChat("gpt", base_url=server.url)
    list(llm.reply(HELLO))
    seen += [repr(llm), repr(vars(llm)), repr(llm._client), caplog.text, *capfd.readouterr()]
    assert "trying again" in caplog.text
    assert "Sending HTTP Request" in caplog.text  # The library's own logging was on.
    assert not [text for text in seen if KEY in text]
    assert all(request.authorization == f"Bearer {KEY}" for request in server.requests)


@pytest.mark.parametrize("value", [f"{KEY}\nX: 1", f"{KEY} 1", f"{KEY}é"])
def test_key_that_no_header_can_hold(
    value: str, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(DependencyError, match="OPENAI_API_KEY holds") as failure:
        OpenAIChat("gpt", base_url=server.url)
    assert KEY not in "".join(traceback.format_exception(failure.value))


def test_key_in_place_of_its_name_is_not_repeated(server: OpenAIServer) -> None:
    with pytest.raises(UsageError, match="never the key itself") as failure:
        OpenAIChat("gpt", base_url=server.url, api_key_env=KEY)
    assert KEY not in "".join(traceback.format_exception(failure.value))


@pytest.mark.parametrize(
    "option", ["stt/openai", "llm/openai", "llm/openai_compatible", "tts/openai"]
)
def test_configuration(option: str, server: OpenAIServer) -> None:
    cfg = OmegaConf.load(conf_dir() / f"{option}.yaml")
    assert instantiate(cfg) is not None
    assert KEY not in OmegaConf.to_yaml(cfg, resolve=True)
