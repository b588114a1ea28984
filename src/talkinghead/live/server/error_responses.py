"""Errors as JSON for clients: {"error": {"type", "message"}}, without tracebacks and paths."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from talkinghead.errors import CheckpointError, DependencyError, SpeechError, TalkingHeadError
from talkinghead.live.session.process_handle import SessionLostError
from talkinghead.live.session.session_pool import PoolClosedError, PoolFullError
from talkinghead.media.atomic_file import is_disk_full

log = logging.getLogger(__name__)

_TYPES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    410: "session_lost",
    413: "too_large",
    415: "unsupported_media_type",
    422: "validation_error",
    429: "rate_limited",
    503: "unavailable",
}
_INVALID = (RequestValidationError, WebSocketRequestValidationError)
_UNAVAILABLE = (SpeechError, DependencyError, CheckpointError, PoolFullError, PoolClosedError)
# Folders of an absolute path, but not of a URL or of a route of the API.
_FOLDERS = re.compile(r"(?<![\w.:/])/(?!v1/)(?:[^\s/:'\"]+/)+")


class ErrorDetail(BaseModel):
    """Type and message of an error."""

    type: str = Field(examples=["face_not_found_error"])
    message: str = Field(examples=["upload: no face was found; use another photo"])


class ErrorBody(BaseModel):
    """Body of every response with an error status."""

    error: ErrorDetail


@dataclass(frozen=True)
class ClientError:
    """Description of an exception for a client."""

    status: int
    type: str
    message: str
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: Exception) -> ClientError:
        """Describe an exception; unexpected exceptions are logged and not described."""
        if is_disk_full(error):  # FastAPI reports it as an error of the client.
            log.error("the disk is full: free space for temporary files, or set TMPDIR")
            return cls(503, _TYPES[503], "the disk of the server is full; try again later", 60)
        if isinstance(error, HTTPException):
            retry_after = (error.headers or {}).get("Retry-After")
            kind = _TYPES.get(error.status_code, "http_error")
            return cls(
                error.status_code, kind, error.detail, float(retry_after) if retry_after else None
            )
        if isinstance(error, _INVALID):
            return cls(422, _TYPES[422], "; ".join(map(_fault, error.errors())))
        if isinstance(error, TimeoutError):
            return cls(503, "timeout", "the session does not respond; start another one", 1)
        if not isinstance(error, TalkingHeadError):
            log.error("unexpected error", exc_info=error)
            return cls(500, "internal_error", "unexpected error; see the log of the server")
        retry_after_s = error.retry_after_s if isinstance(error, PoolFullError) else None
        status = 503 if isinstance(error, _UNAVAILABLE) else 422
        if isinstance(error, SessionLostError):
            status = 410
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
        return cls(status, kind, public_message(error), retry_after_s)

    @property
    def body(self) -> dict[str, Any]:
        """The description as JSON."""
        return {"error": {"type": self.type, "message": self.message}}

    def response(self) -> JSONResponse:
        """Return the HTTP response."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)

    async def close(self, websocket: WebSocket) -> None:
        """Refuse a WebSocket, or send the error and close the WebSocket if it was accepted."""
        # The client may have disconnected, or the server may not support denial responses.
        with suppress(WebSocketDisconnect, RuntimeError):
            if websocket.application_state is WebSocketState.CONNECTING:
                await websocket.send_denial_response(self.response())
                return
            await websocket.send_json({"type": "error", **self.body})
            await websocket.close(1013 if self.status == 503 else 1008, self.type)


def public_message(error: Exception) -> str:
    """Return the message of an error without the folders of paths."""
    return _FOLDERS.sub("", str(error))


def responses_for(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of error responses for the OpenAPI schema."""
    always = (400, 401, 403, 413, 422, 429, 503)
    return {
        status: {"model": ErrorBody, "description": _TYPES[status].replace("_", " ")}
        for status in sorted({*always, *statuses})
    }


def install_error_handlers(app: FastAPI) -> None:
    """Register handlers that send the errors of all routes as JSON."""

    async def handle(connection: HTTPConnection, error: Exception) -> JSONResponse | None:
        described = ClientError.of(error)
        if isinstance(connection, WebSocket):
            await described.close(connection)
            return None
        return described.response()

    for kind in (TalkingHeadError, HTTPException, *_INVALID, OSError, Exception):
        app.add_exception_handler(kind, cast(Any, handle))
    app.add_exception_handler(WebSocketDisconnect, _ignore)


async def _ignore(connection: HTTPConnection, error: Exception) -> None:
    """Ignore that a client has disconnected before its session was created."""


def _fault(fault: dict[str, Any]) -> str:
    """Describe one fault of a request without its value, which may be a secret."""
    where = ".".join(str(part) for part in fault["loc"] if part != "body") or "the body"
    return f"{where}: {fault['msg']}"
