"""WebSocket stream that receives speech, and sends it back with images of a live avatar."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, WebSocket
from pydantic import ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketDisconnect

from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.live.server.access import RateLimiter
from talkinghead.live.server.avatar_library import AvatarLibrary, Library
from talkinghead.live.server.error_responses import ClientError
from talkinghead.live.server.routes.sessions_api import (
    NewSession,
    Pool,
    Session,
    relay_events,
    run_until_first,
)
from talkinghead.live.server.server_settings import ServerSettings, Settings
from talkinghead.live.session.process_handle import SessionLostError
from talkinghead.live.session.session_pool import SessionPool

router = APIRouter(prefix="/v1")


class StreamQuery(NewSession):
    """Query of a stream: the choices of a session, and the format of audio and images."""

    model_config = ConfigDict(extra="ignore")

    sample_rate: int = Field(16_000, ge=8_000, le=48_000)
    image: Literal["jpeg", "h264", "none"] = "jpeg"
    quality: int = Field(80, ge=1, le=100)


class ClientMessages:
    """Messages of a WebSocket client, with limits of size, rate, idle time and queued audio.

    Args:
        websocket: An accepted WebSocket.
        settings: The settings of the server.
    """

    def __init__(self, websocket: WebSocket, settings: ServerSettings) -> None:
        self._websocket, self._settings = websocket, settings
        self._commands = RateLimiter(settings.requests_per_s, 3 * settings.requests_per_s)
        self._audio_end_s = 0.0

    async def next(self) -> dict[str, Any] | bytes:
        """Return the next message: a JSON object with a "type", or bytes.

        Raises:
            UsageError: The text is not such an object.
            HTTPException: The client sends nothing, or too large messages.
            WebSocketDisconnect: The client has disconnected.
        """
        settings = self._settings
        try:
            async with asyncio.timeout(settings.socket_timeout_s):
                message = await self._websocket.receive()
        except TimeoutError:
            raise HTTPException(408, f"no message in {settings.socket_timeout_s:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        content = message.get("bytes") if message.get("text") is None else message["text"]
        if len(content or "") > settings.max_message_bytes:
            raise HTTPException(413, f"messages may have {settings.max_message_bytes:,} bytes")
        if isinstance(content, bytes):
            return content
        try:
            parsed = json.loads(content or "")
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict) or not isinstance(parsed.get("type"), str):
            raise UsageError('the text message is not a JSON object with a "type"')
        return parsed

    def count_command(self) -> None:
        """Count a command that is not audio; raise a `UsageError` if the rate is too high."""
        if self._commands.wait_s():
            raise UsageError("too many messages; send them more slowly")

    def count_audio(self, pcm: bytes, sample_rate: int) -> bytes:
        """Return 16-bit audio; raise a `UsageError` if it is invalid, or too far ahead of time."""
        if len(pcm) % 2:
            raise UsageError(f"audio: {len(pcm)} bytes; expected 16-bit samples")
        now_s = time.monotonic()
        end_s = max(now_s, self._audio_end_s) + len(pcm) / 2 / sample_rate
        if end_s - now_s > self._settings.max_audio_s:
            raise UsageError(f"audio: more than {self._settings.max_audio_s:g} s are queued; wait")
        self._audio_end_s = end_s
        return pcm

    def reset_audio(self) -> None:
        """Count the queued audio as played, after an interruption."""
        self._audio_end_s = 0.0


@asynccontextmanager
async def temporary_session(
    pool: SessionPool, library: AvatarLibrary, settings: ServerSettings, new: NewSession
) -> AsyncIterator[Session]:
    """Start a session that ends with its WebSocket."""
    session = await Session.create(pool, library, settings, new)
    try:
        yield session
    finally:
        await session.handle.close()


@router.websocket("/stream")
async def stream(
    websocket: WebSocket,
    pool: Pool,
    library: Library,
    settings: Settings,
    query: Annotated[StreamQuery, Query()],
) -> None:
    """Speak PCM16 audio and texts; send frames, each as a JSON header and a binary message."""
    await websocket.accept()
    async with temporary_session(pool, library, settings, query) as session:
        messages = ClientMessages(websocket, settings)
        output = query.model_dump(include={"image", "quality", "sample_rate"})
        start = {"type": "session", "id": session.id, **output, **session.handle.video}
        await websocket.send_json(start)
        await session.call("stream", **output)
        await run_until_first(
            websocket,
            relay_events(session, websocket, partial(_send, websocket)),
            _receive(websocket, session, messages, query.sample_rate),
        )


async def _send(websocket: WebSocket, event: dict[str, Any]) -> None:
    """Send an event; a frame as its header, and a binary message with its audio and image."""
    if event["type"] != "frame":
        await websocket.send_json(event)
        return
    audio, image = event["audio"], event["image"]
    header = {key: value for key, value in event.items() if key not in ("audio", "image")}
    header |= {"num_samples": len(audio) // 2, "num_image_bytes": len(image)}
    await websocket.send_json(header)
    await websocket.send_bytes(audio + image)


async def _receive(
    websocket: WebSocket, session: Session, messages: ClientMessages, sample_rate: int
) -> None:
    while True:
        try:
            message = await messages.next()
            if isinstance(message, bytes):
                pcm = messages.count_audio(message, sample_rate)
                await session.call("say_audio", pcm=pcm, sample_rate=sample_rate)
            else:
                messages.count_command()
                await _run_command(session, messages, message)
        except SessionLostError:
            raise
        except TalkingHeadError as error:
            await websocket.send_json({"type": "error", **ClientError.of(error).body})


async def _run_command(session: Session, messages: ClientMessages, command: dict[str, Any]) -> None:
    match command["type"]:
        case "end":
            await session.call("say_end")
        case "interrupt":
            messages.reset_audio()
            await session.call("interrupt")
        case "say" | "ask" as op:
            await session.call(op, text=session.check_text(command.get("text")))
        case _:
            raise UsageError('type: expected "end", "interrupt", "say" or "ask"')
