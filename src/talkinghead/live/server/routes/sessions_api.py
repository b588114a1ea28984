"""Routes of sessions: creation, WebRTC, speech, questions, recordings and events."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketDisconnect, WebSocketState

from talkinghead.errors import MediaError, UsageError
from talkinghead.live.server.avatar_library import AvatarLibrary, Library
from talkinghead.live.server.error_responses import responses_for
from talkinghead.live.server.routes.avatars_api import CreatedId
from talkinghead.live.server.server_settings import ServerSettings, Settings, app_state
from talkinghead.live.session.session_pool import SessionHandle, SessionPool
from talkinghead.predict.source.head.expression.emotions import EMOTIONS, Emotion

MAX_PERSONA_CHARS = 4000

# Close codes of WebSockets by the reason for which a session ended; others have 1000 (normal).
_CLOSE_CODES = {"shutdown": 1001, "crashed": 1011}

Angle = Annotated[float, Field(ge=-45, le=45)]
"""An angle in degrees; larger angles than a head can turn are limited."""

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


class Choices(BaseModel):
    """Settings of a session that a client may choose and change later."""

    model_config = ConfigDict(extra="forbid")

    voice: str | None = Field(None, max_length=200, description="A name of GET /v1/voices.")
    llm: str | None = Field(None, max_length=200, description="A name in `llms` of GET /v1/config.")
    persona: str | None = Field(
        None,
        max_length=MAX_PERSONA_CHARS,
        description="Instructions to the language model, or the name of one of the personas.",
        examples=["You are a museum guide. Answer in one short sentence."],
    )

    emotion: str | None = Field(
        None,
        max_length=40,
        description="Emotion of the face: " + ", ".join(EMOTIONS) + ".",
        examples=["happy"],
    )
    intensity: float | None = Field(
        None, ge=0, le=1, description="Intensity of the emotion; 1 at the start."
    )
    pose: tuple[Angle, Angle, Angle] | None = Field(
        None,
        description="Yaw, pitch and roll in degrees of the head in a photo.",
        examples=[[5, 0, -3]],
    )

    def checked(self, settings: ServerSettings) -> dict[str, Any]:
        """Return the chosen values.

        Raises:
            UsageError: The server has no such voice or language model, or the emotion is unknown.
        """
        chosen = self.model_dump(include=set(Choices.model_fields), exclude_none=True)
        for name, known in (("voice", settings.voices), ("llm", settings.llms)):
            if name in chosen and chosen[name] not in known:
                raise UsageError(f"{name}: unknown; choose one of {', '.join(known) or 'none'}")
        if "emotion" in chosen:
            Emotion(chosen["emotion"])
        if "persona" in chosen:
            chosen["persona"] = settings.personas.get(chosen["persona"], chosen["persona"])
        return chosen


class NewSession(Choices):
    """A session to be created; every field has a default."""

    avatar: str | None = Field(
        None, max_length=200, description="An id of GET or POST /v1/avatars.", examples=["default"]
    )
    language: str | None = Field(
        None, pattern="^[a-z]{2}$", description="Code of the language of the replies."
    )


class CreatedSession(CreatedId):
    """A created session."""

    expires_in_s: float = Field(description="Maximum duration of the session.")


class SessionState(CreatedId):
    """State of a session."""

    state: str = Field(examples=["idle", "listening", "thinking", "speaking"])
    stats: dict[str, Any] = Field(examples=[{"frames_per_second": 25.0, "num_dropped": 0}])


class Description(BaseModel):
    """A WebRTC session description."""

    model_config = ConfigDict(extra="forbid")

    sdp: str = Field(examples=["v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n..."])
    type: Literal["offer", "answer"] = "offer"


class SpokenText(BaseModel):
    """A text that a session speaks or answers."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, examples=["Hello, how are you?"])


class Turn(BaseModel):
    """Number of the turn that a request started."""

    turn: int


Pool = Annotated[SessionPool, app_state("pool")]
"""The session pool as a parameter of a route."""


class Session:
    """A session of the pool whose calls have a time limit."""

    def __init__(self, handle: SessionHandle, settings: ServerSettings) -> None:
        self.handle, self.id, self._settings = handle, handle.id, settings

    @classmethod
    async def create(
        cls,
        pool: SessionPool,
        library: AvatarLibrary,
        settings: ServerSettings,
        new: NewSession,
        webrtc: bool = False,
    ) -> Session:
        """Start a session; with `webrtc`, the client will probably send an offer.

        Raises:
            PoolFullError: All sessions are in use.
            TalkingHeadError: A choice is unknown, or the session cannot start.
        """
        face = await library.find(new.avatar)
        choices = {"language": new.language, "webrtc": webrtc, **new.checked(settings)}
        return cls(await pool.create(choices, face), settings)

    async def call(self, op: str, **arguments: Any) -> Any:
        """Call the session's process.

        Raises:
            TalkingHeadError: The process refused, or has died.
            TimeoutError: It does not respond.
        """
        async with asyncio.timeout(self._settings.call_timeout_s):
            return await self.handle.call(op, **arguments)

    def check_text(self, text: Any) -> str:
        """Return a text, or raise a `UsageError` if it is missing or too long."""
        limit = self._settings.max_text_chars
        if not isinstance(text, str) or not 0 < len(text.strip()) <= limit:
            raise UsageError(f"text: expected 1 to {limit} characters")
        if not text.isprintable() and any("\ud800" <= char <= "\udfff" for char in text):
            raise UsageError("text: contains half of a surrogate pair; expected Unicode")
        return text


async def _session(session_id: str, pool: Pool, settings: Settings) -> Session:
    if (handle := pool.sessions.get(session_id)) is None:
        raise HTTPException(404, "there is no such session; it may have ended")
    return Session(handle, settings)


Existing = Annotated[Session, Depends(_session)]


@router.post("", status_code=201, responses=responses_for())
async def create_session(
    new: NewSession, pool: Pool, library: Library, settings: Settings
) -> CreatedSession:
    """Start a session: a live avatar with its own conversation."""
    session = await Session.create(pool, library, settings, new, webrtc=True)
    return CreatedSession(id=session.id, expires_in_s=pool.options.max_duration_s)


@router.get("/{session_id}", responses=responses_for(404, 410))
async def get_session(session: Existing) -> SessionState:
    """Return the state of a session, and measurements of its speed."""
    stats = await session.call("stats")
    return SessionState(id=session.id, state=session.handle.state, stats=stats)


@router.patch("/{session_id}", status_code=204, responses=responses_for(404, 410))
async def update_session(session: Existing, choices: Choices, settings: Settings) -> None:
    """Change the face at once, and the rest from the next reply on; the history is kept."""
    await session.call("update", **choices.checked(settings))


@router.delete("/{session_id}", status_code=204, responses=responses_for(404))
async def delete_session(session: Existing) -> None:
    """End a session, and free its slot."""
    await session.handle.close()


@router.post("/{session_id}/offer", responses=responses_for(404, 410))
async def offer(session: Existing, description: Description) -> Description:
    """Answer a WebRTC offer of a client that receives two tracks and may send a microphone track.

    A second offer replaces the connection, for example after the network was lost; the
    conversation continues.
    """
    return Description(**await session.call("offer", **description.model_dump()))


_SAY_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": SpokenText.model_json_schema()},
            "audio/wav": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "/{session_id}/say",
    status_code=202,
    openapi_extra=_SAY_BODY,
    responses=responses_for(404, 408, 410, 415),
)
async def say(session: Existing, request: Request, settings: Settings) -> Turn:
    """Say a text, or the speech of a WAV file (16-bit PCM), without asking the language model."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind == "application/json":
        text = session.check_text(_parse(body).text)
        return Turn(**await session.call("say", text=text))
    if kind not in ("audio/wav", "audio/x-wav", "audio/wave"):
        raise HTTPException(415, "the body must be application/json or audio/wav")
    pcm, sample_rate = await asyncio.to_thread(_read_wav, body, settings.max_audio_s)
    speech = {"pcm": pcm, "sample_rate": sample_rate, "is_complete": True}
    return Turn(**await session.call("say_audio", **speech))


@router.post("/{session_id}/ask", status_code=202, responses=responses_for(404, 410))
async def ask(session: Existing, question: SpokenText) -> Turn:
    """Ask the language model, and speak its answer."""
    return Turn(**await session.call("ask", text=session.check_text(question.text)))


@router.post("/{session_id}/interrupt", status_code=204, responses=responses_for(404, 410))
async def interrupt(session: Existing) -> None:
    """Stop speaking, and discard the rest of the answer."""
    await session.call("interrupt")


@router.get(
    "/{session_id}/recording",
    response_class=FileResponse,
    responses={**responses_for(404, 410), 200: {"content": {"video/mp4": {}}}},
)
async def get_recording(session: Existing) -> FileResponse:
    """Return the last answer as an MP4 file."""
    return await _recorded(session, "video", "video/mp4", "answer.mp4")


@router.get(
    "/{session_id}/subtitles",
    response_class=FileResponse,
    responses={**responses_for(404, 410), 200: {"content": {"application/x-subrip": {}}}},
)
async def get_subtitles(session: Existing) -> FileResponse:
    """Return the subtitles of the last answer as an SRT file."""
    return await _recorded(session, "subtitles", "application/x-subrip", "answer.srt")


@router.websocket("/{session_id}/events")
async def events(websocket: WebSocket, session: Existing) -> None:
    """Send the events of a session as JSON messages, until the session or the client ends."""
    await websocket.accept()

    async def send(event: dict[str, Any]) -> None:
        if event["type"] != "frame":
            await websocket.send_json(event)

    async def wait_for_end() -> None:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass

    await run_until_first(websocket, relay_events(session, websocket, send), wait_for_end())


async def relay_events(
    session: Session, websocket: WebSocket, send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """Send the events of a session until it ends, and close the WebSocket."""
    reason = ""
    async for event in session.handle.subscribe():
        await send(event)
        reason = event["reason"] if event["type"] == "closed" else ""
    await websocket.close(_CLOSE_CODES.get(reason, 1000), reason)


async def run_until_first(websocket: WebSocket, *coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines that use a WebSocket until one ends, cancel the others, and raise its error.

    The end of the connection is not an error.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    errors = [task.exception() for task in tasks if not task.cancelled()]
    # Starlette raises a `RuntimeError` if another coroutine has noticed the end before.
    is_closed = websocket.application_state is WebSocketState.DISCONNECTED
    ends = (WebSocketDisconnect, RuntimeError) if is_closed else WebSocketDisconnect
    for error in errors:
        if error is not None and not isinstance(error, ends):
            raise error


async def _recorded(session: Session, key: str, media_type: str, name: str) -> FileResponse:
    # Rendering may take longer than `call_timeout_s`. It continues after a timeout of the process
    # handle, so that a later request gets the file.
    files: Mapping[str, Path] = await session.handle.call("record")
    path = Path(files[key])
    if not await asyncio.to_thread(path.is_file):
        raise HTTPException(404, "there is no recorded answer yet")
    return FileResponse(path, media_type=media_type, filename=name)


def _parse(body: bytes) -> SpokenText:
    try:
        return SpokenText.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False)) from error


def _read_wav(body: bytes, max_s: float) -> tuple[bytes, int]:
    """Return the mono 16-bit samples and the sample rate of a WAV file.

    Raises:
        MediaError: The file is damaged, too long, or not 16-bit PCM.
    """
    try:
        with wave.open(io.BytesIO(body)) as reader:
            channels, width, rate = reader.getparams()[:3]
            if width != 2 or not 8_000 <= rate <= 192_000:
                raise MediaError("audio: expected 16-bit PCM at 8 to 192 kHz; convert it")
            # The header of a WAV stream does not state the length.
            data = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError, RuntimeError) as error:  # The module also raises the last.
        reason = str(error) or "a chunk is longer than the file"
        raise MediaError(f"audio: not a WAV file with 16-bit PCM ({reason})") from error
    samples = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], "<i2")
    mono = samples.reshape(-1, channels).mean(axis=1).round().astype("<i2")
    if not 0 < len(mono) <= max_s * rate:
        raise MediaError(f"audio: {len(mono) / rate:.1f} s; expected up to {max_s:g} s of speech")
    return mono.tobytes(), rate
