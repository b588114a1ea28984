"""WebSocket with a subset of OpenAI's realtime events, for voice agents.

The events are those of the generally available realtime API. Audio is PCM16 at 24 kHz, mono. With
`turn_detection` null, speech is answered only after `input_audio_buffer.commit` and
`response.create`; otherwise the session detects the end of each question.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Query, WebSocket
from pydantic import ConfigDict, Field

from talkinghead.errors import TalkingHeadError, UsageError
from talkinghead.live.server.avatar_library import Library
from talkinghead.live.server.error_responses import ClientError
from talkinghead.live.server.routes.sessions_api import (
    Choices,
    NewSession,
    Pool,
    Session,
    relay_events,
    run_until_first,
)
from talkinghead.live.server.routes.stream_api import ClientMessages, temporary_session
from talkinghead.live.server.server_settings import ServerSettings, Settings
from talkinghead.live.session.process_handle import SessionLostError

SAMPLE_RATE = 24_000

# Silence after committed speech, from which the session detects the end of the question.
_END_SILENCE_S = 1.5
_FORMAT = {"type": "audio/pcm", "rate": SAMPLE_RATE}

router = APIRouter(prefix="/v1")


class RealtimeQuery(NewSession):
    """Query of a realtime connection."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field("talkinghead", max_length=200)


@dataclass
class Response:
    """A response in progress, with the fields that its events have in common.

    Attributes:
        id: Identifier of the response.
        item_id: Identifier of its message.
        texts: Sentences so far.
        interrupted: How it ended; None before the event `reply_end`.
        is_played: The last frame was sent. It may precede or follow `reply_end`.
        has_failed: An error was reported.
    """

    id: str
    item_id: str
    texts: list[str] = field(default_factory=list)
    interrupted: bool | None = None
    is_played: bool = False
    has_failed: bool = False

    @property
    def position(self) -> dict[str, Any]:
        """Fields of an event about the content of the response."""
        ids = {"response_id": self.id, "item_id": self.item_id}
        return {**ids, "output_index": 0, "content_index": 0}

    def item(self, status: str) -> dict[str, Any]:
        """Return the message item."""
        text = " ".join(self.texts)
        content = [{"type": "output_audio", "transcript": text}] if text else []
        return _message(self.item_id, "assistant", status, content)

    def resource(self, status: str, **details: Any) -> dict[str, Any]:
        """Return the response object, with details of its status."""
        output = [] if status == "in_progress" else [self.item(_ITEM_STATUS[status])]
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": {"type": status, **details} if details else None,
            "output": output,
            "output_modalities": ["audio"],
        }


_ITEM_STATUS = {"completed": "completed", "cancelled": "incomplete", "failed": "incomplete"}


class RealtimeConnection:
    """State of one connection: input audio, waiting texts, and the response in progress.

    Args:
        websocket: An accepted WebSocket.
        session: The session of the connection.
        settings: The settings of the server.
        query: The query of the connection.
    """

    def __init__(
        self, websocket: WebSocket, session: Session, settings: ServerSettings, query: RealtimeQuery
    ) -> None:
        self._websocket, self._session, self._settings = websocket, session, settings
        self._messages = ClientMessages(websocket, settings)
        self._model, self._voice, self._instructions = query.model, query.voice, query.persona
        self._detects_turns = True
        self._buffer, self._committed = bytearray(), b""
        self._texts: list[str] = []
        self._response: Response | None = None
        self._user_item, self._num_samples = _new_id("item"), 0
        self._was_cancelled = self._is_listening = self._has_new_audio = False

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        event = {"type": kind, "event_id": _new_id("event"), **fields}
        # Unlike `send_json`, this escapes incomplete surrogate pairs of the client's values.
        await self._websocket.send_text(json.dumps(event))

    async def receive(self) -> None:
        """Handle the client's events until the client disconnects."""
        while True:
            event: dict[str, Any] | bytes = {}
            try:
                event = await self._messages.next()
                if isinstance(event, bytes):
                    raise UsageError("expected a JSON message, got a binary one")
                if event["type"] != "input_audio_buffer.append":
                    self._messages.count_command()
                await self._handle(event)
            except SessionLostError:
                raise
            except TalkingHeadError as error:
                event_id = event.get("event_id") if isinstance(event, dict) else None
                event_id = event_id if isinstance(event_id, str) else None
                detail = {**ClientError.of(error).body["error"], "event_id": event_id}
                detail["type"], detail["code"] = "invalid_request_error", detail["type"]
                await self.send("error", error=detail)

    async def relay(self) -> None:
        """Send the events of the session until it ends."""
        await self.send("session.created", session=self._resource())
        await relay_events(self._session, self._websocket, self._relay)

    async def _relay(self, event: dict[str, Any]) -> None:
        """Send the realtime events that correspond to an event of the session."""
        match event:
            case {"type": "frame", "reply": int(), "audio": bytes() as audio} if audio:
                response = await self._in_progress()
                delta = base64.b64encode(audio).decode()
                await self.send("response.output_audio.delta", **response.position, delta=delta)
                response.is_played = event["is_reply_end"]
                await self._end_response(response)
            case {"type": "transcript", "role": "assistant", "text": str() as text}:
                response = await self._in_progress()
                delta = f" {text}" if response.texts else text
                response.texts.append(text)
                name = "response.output_audio_transcript.delta"
                await self.send(name, **response.position, delta=delta)
            case {"type": "transcript", "role": "user", "text": str() as text, "is_final": True}:
                await self._end_transcription(text)
            case {"type": "state", "state": str() as state}:
                await self._change_state(state)
            case {"type": "reply_end", "interrupted": bool() as interrupted}:
                response = await self._in_progress()
                response.interrupted = interrupted
                response.is_played |= event.get("num_frames") == 0
                await self._end_response(response)
            case {"type": "error", "message": str() as message}:
                if "turn" in event:
                    (await self._in_progress()).has_failed = True
                await self.send("error", error={"type": "server_error", "message": message})

    async def _handle(self, event: dict[str, Any]) -> None:
        """Handle one event of the client."""
        match event["type"]:
            case "session.update":
                await self._update(event.get("session"))
            case "input_audio_buffer.append":
                await self._append(event.get("audio"))
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                self._buffer.clear()
                await self.send("input_audio_buffer.cleared")
            case "conversation.item.create":
                await self._add_item(event.get("item"))
            case "response.create":
                await self._respond()
            case "response.cancel":
                if self._response is None:
                    raise UsageError("there is no response in progress")
                self._was_cancelled = True
                await self._session.call("interrupt")
            case _:
                raise UsageError("type: not supported; see the list in docs/live-server.md")

    async def _update(self, session: Any) -> None:
        """Change instructions, voice and turn detection."""
        if not isinstance(session, dict):
            raise UsageError("session: expected an object")
        audio = session.get("audio") or {}
        inputs, outputs = _part(audio, "input"), _part(audio, "output")
        for part in (inputs, outputs):
            if part.get("format") not in (None, _FORMAT):
                raise UsageError(f"audio.format: only {_FORMAT} is supported")
        voice, instructions = outputs.get("voice"), session.get("instructions")
        try:
            choices = Choices.model_validate({"voice": voice, "persona": instructions})
        except ValueError:
            raise UsageError("voice, instructions: expected texts of limited length") from None
        if chosen := choices.checked(self._settings):
            await self._session.call("update", **chosen)
        self._voice = self._voice if voice is None else voice
        self._instructions = self._instructions if instructions is None else instructions
        if "turn_detection" in inputs:
            self._detects_turns = inputs["turn_detection"] is not None
        await self.send("session.updated", session=self._resource())

    async def _append(self, audio: Any) -> None:
        """Pass audio on to the turn detection, or keep it until it is committed."""
        try:
            pcm = base64.b64decode(audio, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise UsageError("audio: expected base64 text") from None
        self._messages.count_audio(pcm, SAMPLE_RATE)
        self._num_samples += len(pcm) // 2
        if self._detects_turns:
            await self._session.call("listen", pcm=pcm, sample_rate=SAMPLE_RATE)
            self._has_new_audio |= bool(pcm)
            return
        if len(self._buffer) + len(pcm) > self._settings.max_audio_s * SAMPLE_RATE * 2:
            raise UsageError("the input audio buffer is full: commit or clear it")
        self._buffer += pcm

    async def _commit(self) -> None:
        if not (self._has_new_audio if self._detects_turns else self._buffer):
            raise UsageError("the input audio buffer is empty: append audio first")
        self._has_new_audio = False
        if self._detects_turns:
            await self._listen(b"")  # The silence ends the question at once.
            return
        self._committed, self._buffer = bytes(self._buffer), bytearray()
        await self.send("input_audio_buffer.committed", item_id=self._user_item)

    async def _listen(self, pcm: bytes) -> None:
        silence = bytes(2 * round(_END_SILENCE_S * SAMPLE_RATE))
        await self._session.call("listen", pcm=pcm + silence, sample_rate=SAMPLE_RATE)

    async def _add_item(self, item: Any) -> None:
        """Keep a text of the user for the next response."""
        parts = item.get("content") if isinstance(item, dict) else None
        if not isinstance(parts, list) or item.get("role") != "user":
            raise UsageError("item: only user messages with input_text are supported")
        texts = [part["text"] for part in parts if _is_text(part)]
        if len(texts) != len(parts) or not texts:
            raise UsageError("item.content: only parts of type input_text are supported")
        self._session.check_text(" ".join([*self._texts, *texts]))
        self._texts += texts
        item_id = item["id"] if isinstance(item.get("id"), str) else _new_id("item")
        content = [{"type": "input_text", "text": text} for text in texts]
        message = _message(item_id, "user", "completed", content)
        await self.send("conversation.item.added", item=message)
        await self.send("conversation.item.done", item=message)

    async def _respond(self) -> None:
        if self._texts:
            text = " ".join(self._texts)
            self._texts.clear()
            await self._session.call("ask", text=text)
        elif self._committed:
            pcm, self._committed = self._committed, b""
            await self._listen(pcm)
        elif not self._detects_turns:
            raise UsageError("there is nothing to respond to: commit audio or create an item")

    async def _change_state(self, state: str) -> None:
        """Send the events of the turn detection."""
        if not self._detects_turns or self._is_listening == (state == "listening"):
            return
        self._is_listening = state == "listening"
        time_ms = round(1000 * self._num_samples / SAMPLE_RATE)
        item_id = self._user_item
        name = "input_audio_buffer.speech_"
        if self._is_listening:
            await self.send(f"{name}started", item_id=item_id, audio_start_ms=time_ms)
            return
        await self.send(f"{name}stopped", item_id=item_id, audio_end_ms=time_ms)
        if state == "thinking":
            await self.send("input_audio_buffer.committed", item_id=item_id)

    async def _end_transcription(self, text: str) -> None:
        content = [{"type": "input_audio", "transcript": text}]
        item = _message(self._user_item, "user", "completed", content)
        await self.send("conversation.item.added", item=item)
        await self.send("conversation.item.done", item=item)
        await self.send(
            "conversation.item.input_audio_transcription.completed",
            item_id=self._user_item,
            content_index=0,
            transcript=text,
            usage={"type": "duration", "seconds": 0},
        )
        self._user_item = _new_id("item")

    async def _in_progress(self) -> Response:
        """Return the response in progress; create one if there is none."""
        if self._response is None:
            self._response = response = Response(_new_id("resp"), _new_id("item"))
            item = response.item("in_progress")
            await self.send("response.created", response=response.resource("in_progress"))
            place = {"response_id": response.id, "output_index": 0}
            await self.send("response.output_item.added", **place, item=item)
            await self.send("conversation.item.added", item=item)
            part = {"type": "audio", "transcript": ""}
            await self.send("response.content_part.added", **response.position, part=part)
        return self._response

    async def _end_response(self, response: Response) -> None:
        """End a response whose last frame and `reply_end` were received."""
        if response.interrupted is None or not response.is_played:
            return
        self._response = None
        status, details, text = "completed", dict[str, Any](), " ".join(response.texts)
        if response.interrupted:
            reason = "client_cancelled" if self._was_cancelled else "turn_detected"
            status, details = "cancelled", {"reason": reason}
        elif response.has_failed:
            status, details = "failed", {"error": {"type": "server_error"}}
        self._was_cancelled = False
        place, item = response.position, response.item(_ITEM_STATUS[status])
        await self.send("response.output_audio.done", **place)
        await self.send("response.output_audio_transcript.done", **place, transcript=text)
        part = {"type": "audio", "transcript": text}
        await self.send("response.content_part.done", **place, part=part)
        where = {"response_id": response.id, "output_index": 0}
        await self.send("response.output_item.done", **where, item=item)
        await self.send("conversation.item.done", item=item)
        await self.send("response.done", response=response.resource(status, **details))

    def _resource(self) -> dict[str, Any]:
        """Return the session object."""
        detection = {"type": "server_vad"} if self._detects_turns else None
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": self._session.id,
            "model": self._model,
            "instructions": self._instructions or "",
            "output_modalities": ["audio"],
            "audio": {
                "input": {"format": _FORMAT, "turn_detection": detection},
                "output": {"format": _FORMAT, "voice": self._voice},
            },
        }


@router.websocket("/realtime")
async def realtime(
    websocket: WebSocket,
    pool: Pool,
    library: Library,
    settings: Settings,
    query: Annotated[RealtimeQuery, Query()],
) -> None:
    """Serve one realtime connection."""
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept("realtime" if "realtime" in offered else None)
    async with temporary_session(pool, library, settings, query) as session:
        connection = RealtimeConnection(websocket, session, settings, query)
        await session.call("stream", image="none", quality=1, sample_rate=SAMPLE_RATE)
        await run_until_first(websocket, connection.relay(), connection.receive())


def _part(audio: Any, name: str) -> dict[str, Any]:
    part = audio.get(name) if isinstance(audio, dict) else None
    return part if isinstance(part, dict) else {}


def _is_text(part: Any) -> bool:
    is_text = isinstance(part, dict) and part.get("type") == "input_text"
    return is_text and isinstance(part.get("text"), str)


def _message(item_id: str, role: str, status: str, content: list[Any]) -> dict[str, Any]:
    item = {"id": item_id, "object": "realtime.item", "type": "message"}
    return {**item, "role": role, "status": status, "content": content}


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"
