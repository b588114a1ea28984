"""Local server with the OpenAI API that sends prepared responses, and a client for it."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import DEMO_SPEECH
from talkinghead.speech.llm.openai_llm import OpenAIChat
from talkinghead.speech.protocols import Message
from talkinghead.speech.stt.openai_stt import OpenAISpeechToText
from talkinghead.speech.tts.openai_tts import OpenAITextToSpeech

KEY = "sk-test-5up3r53cr3t"
CLOSE_CONNECTION = "close connection"
STALL = "stall"
# No test waits this long unless the expected event does not happen.
_TIMEOUT_S = 5


@dataclass
class CannedResponse:
    """A prepared response that is sent in pieces.

    A piece is bytes to send; an Event to wait for; CLOSE_CONNECTION to close the connection at
    once; or STALL to send nothing until the client disconnects.
    """

    pieces: Sequence[bytes | Event | str]
    content_type: str = "application/json"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    path: str
    authorization: str | None
    content_type: str
    body: bytes
    time_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, Any]:
        """The fields of a multipart form; for lists, marked by [], only the last value."""
        head = f"Content-Type: {self.content_type}\r\n\r\n".encode()
        parts = message_from_bytes(head + self.body).get_payload()
        return {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in parts
        }


def transcript_response(text: str, **more: Any) -> CannedResponse:
    return CannedResponse([json.dumps({"text": text, **more}).encode()])


def chat_event(text: str | None = None, finish: str | None = None) -> bytes:
    """Return one server-sent event of a chat reply."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


END = (chat_event(finish="stop"), b"data: [DONE]\n\n")


def chat_response(*pieces: str | bytes | Event) -> CannedResponse:
    """Return a streamed chat reply in which every text is an event; other pieces are unchanged."""
    control = (CLOSE_CONNECTION, STALL)
    sent = [chat_event(p) if isinstance(p, str) and p not in control else p for p in pieces]
    return CannedResponse(sent, "text/event-stream")


def pcm_response(*pieces: bytes | Event | str) -> CannedResponse:
    return CannedResponse(pieces, "audio/pcm")


def pcm_bytes(*values: int) -> bytes:
    """Return samples in [-1, 1] as 16-bit PCM."""
    return np.array(values, "<i2").tobytes()


def error_response(status: int, message: str, retry_after: str = "") -> CannedResponse:
    """Return an error response in the format of the OpenAI API."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": None}}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return CannedResponse([json.dumps(body).encode()], status=status, headers=headers)


class OpenAIServer(ThreadingHTTPServer):
    """A server that sends `responses` in turn and records `requests` and disconnections.

    For concurrent requests, replace `respond`, which returns the response to a request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.responses: deque[CannedResponse] = deque()
        self.requests: list[Request] = []
        self.disconnected = Event()

    def respond(self, request: Request) -> CannedResponse:
        return self.responses.popleft()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def run_openai_server() -> Iterator[OpenAIServer]:
    """Run a server; the environment contains only KEY, and clients retry after a short pause."""
    with pytest.MonkeyPatch.context() as monkeypatch, OpenAIServer() as server:
        for name in [name for name in os.environ if name.startswith("OPENAI_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: OpenAIServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = (self.path, self.headers["Authorization"], self.headers["Content-Type"])
        request = Request(*head, body, time.monotonic())
        self.server.requests.append(request)
        self._send(self.server.respond(request))

    def _send(self, response: CannedResponse) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in (*response.pieces, b""):
            if isinstance(piece, bytes):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            elif piece == STALL:
                self._wait_until_disconnected()
            if piece in (CLOSE_CONNECTION, STALL) or (
                isinstance(piece, Event) and not piece.wait(_TIMEOUT_S)
            ):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return

    def _wait_until_disconnected(self) -> None:
        if select.select([self.connection], [], [], _TIMEOUT_S)[0]:
            assert self.connection.recv(1) == b""
            self.server.disconnected.set()


SPEECH = read_audio(DEMO_SPEECH, 16_000)


def request_transcript(server, cancel=None, **options):
    yield OpenAISpeechToText(base_url=server.url, **options).transcribe(SPEECH, cancel).text


def request_reply(server, cancel=None, **options):
    llm = OpenAIChat("gpt", base_url=server.url, **options)
    yield from llm.reply([Message("user", "Hello?")], cancel)


def request_speech(server, cancel=None, **options):
    for chunk in OpenAITextToSpeech(base_url=server.url, **options).speak("Hello.", cancel):
        yield from (chunk * 32_768).astype(int).tolist()


VALID = {
    request_transcript: (transcript_response("One two."), ["One two."]),
    request_reply: (chat_response("One ", "two.", *END), ["One ", "two."]),
    request_speech: (pcm_response(pcm_bytes(1), pcm_bytes(2)), [1, 2]),
}
"""For each kind of request, a valid response and the expected result."""
for_each_adapter = pytest.mark.parametrize("send", VALID)
