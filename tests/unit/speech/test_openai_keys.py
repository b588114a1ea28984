"""The API key is read from the environment and sent to the server only."""

import logging
import traceback

import pytest
from helpers.openai_requests import HELLO, VALID, for_each_adapter, request_reply
from helpers.openai_server import (
    CLOSE_CONNECTION,
    KEY,
    STALL,
    CannedResponse,
    chat_response,
    error_response,
    pcm_response,
)
from hydra.utils import instantiate
from omegaconf import OmegaConf

from talkinghead.errors import DependencyError, TalkingHeadError, UsageError
from talkinghead.paths import conf_dir
from talkinghead.speech.llm.openai_llm import OpenAIChat


@for_each_adapter
def test_missing_key_is_an_error(send, server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(DependencyError, match=r"OPENAI_API_KEY is not set.*works offline"):
        list(send(server))
    with pytest.raises(DependencyError, match="MY_KEY is not set"):
        list(send(server, api_key_env="MY_KEY"))


@for_each_adapter
def test_no_key_is_sent_without_api_key_env(send, server):
    response, expected = VALID[send]
    server.responses.append(response)
    assert list(send(server, api_key_env=None)) == expected
    assert KEY not in str(server.requests[0].authorization)


def test_server_that_requires_a_key_is_an_error(server):
    server.responses.append(error_response(401, "no key"))
    with pytest.raises(DependencyError, match="name its variable in api_key_env"):
        list(request_reply(server, api_key_env=None))


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
            try:
                list(send(server, max_retries=0, timeout_s=0.2))
            except TalkingHeadError as error:
                yield error


def test_key_is_in_no_error_log_or_repr(server, caplog, capfd, monkeypatch):
    # A handler left by another test, with a closed stream, would print the current exception.
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    caplog.set_level(logging.DEBUG)
    texts = []
    for error in failures_quoting_key(server):
        texts += [repr(error), *traceback.format_exception(error)]
    assert len(texts) > 20
    server.responses += [error_response(500, KEY), VALID[request_reply][0]]
    llm = OpenAIChat("gpt", base_url=server.url)
    list(llm.reply(HELLO))
    texts += [repr(llm), repr(vars(llm)), repr(llm._client), caplog.text, *capfd.readouterr()]
    assert "Retrying request" in caplog.text
    assert "Sending HTTP Request" in caplog.text  # The library's debug log is included.
    assert not [text for text in texts if KEY in text]
    assert all(request.authorization == f"Bearer {KEY}" for request in server.requests)


@pytest.mark.parametrize("value", [f"{KEY}\nX: 1", f"{KEY}é"])
def test_key_invalid_in_a_header_is_refused_and_not_quoted(value, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(DependencyError, match="OPENAI_API_KEY holds") as failure:
        OpenAIChat("gpt", base_url=server.url)
    assert KEY not in "".join(traceback.format_exception(failure.value))


def test_key_given_as_variable_name_is_not_quoted(server):
    with pytest.raises(UsageError, match="never the key itself") as failure:
        OpenAIChat("gpt", base_url=server.url, api_key_env=KEY)
    assert KEY not in "".join(traceback.format_exception(failure.value))


@pytest.mark.parametrize(
    "option", ["stt/openai", "llm/openai", "llm/openai_compatible", "tts/openai"]
)
def test_configurations_hold_no_key(option, server):
    cfg = OmegaConf.load(conf_dir() / f"{option}.yaml")
    assert instantiate(cfg) is not None
    assert KEY not in OmegaConf.to_yaml(cfg, resolve=True)
