"""Settings of the live server."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from talkinghead.errors import UsageError
from talkinghead.value_rules import PositiveFloat, PositiveInt, Range


class VideoRunner(Protocol):
    """Protocol of the renderer of video jobs; `JobRunner` is the default implementation.

    It must be picklable, because every job runs in a separate process.
    """

    def run(self, job: Any, progress: Any) -> Any:
        """Render a `Job`, report `progress`, and return an `Outcome`."""


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the live server.

    Attributes:
        host: Address to listen on. Other machines reach the server only with an address that is
            not a loopback address, such as 0.0.0.0, which requires a token.
        port: TCP port to listen on.
        token: Bearer token that clients must send; None allows everybody who reaches the server.
        face: Photo or video that is shown if a client does not choose an avatar.
        avatars: Folder with more photos and videos to choose from; None for none.
        voices: Names of the voices that a client may choose.
        llms: Names of the language models that a client may choose.
        personas: Names and texts of the personas (system prompts) that the page offers.
        label: Visible text in every image, such as "AI generated"; None for none.
        ice_servers: STUN and TURN servers for WebRTC, as `RTCIceServer` dictionaries.
        socket_timeout_s: Time without a message after which a WebSocket of audio is closed.
        call_timeout_s: Maximum time for the answer of a session's process.
        max_upload_bytes: Maximum size of an uploaded file.
        max_pixels: Maximum number of pixels of an uploaded photo or video frame.
        max_side: Size to which the longer side of larger uploaded photos and videos is reduced.
        max_video_s: Maximum duration of an uploaded video.
        max_audio_s: Maximum duration of uploaded or queued speech.
        upload_timeout_s: Maximum processor time, and time, for the decoding of an upload.
        upload_memory_bytes: Maximum memory for the decoding of an upload.
        upload_expiry_s: Time for which an unused uploaded face is kept.
        max_uploads: Maximum number of uploaded faces that are kept.
        max_text_chars: Maximum length of a text to be spoken or answered.
        max_json_bytes: Maximum size of a request that is not an upload.
        max_message_bytes: Maximum size of a WebSocket message.
        body_timeout_s: Maximum pause while the body of a request is received.
        requests_per_s: Maximum mean rate of requests and of WebSocket commands of a client.
        creations_per_min: Maximum mean rate of new sessions, uploads and videos of a client.
        video_runner: Renderer of POST /v1/videos, a `JobRunner`; None turns the route off.
        max_video_jobs: Maximum number of videos that are queued or being rendered.
        video_timeout_s: Maximum time for the rendering of a video.
        video_expiry_s: Time for which a finished video is kept.
        cors_origins: Origins of other web sites whose pages may use the API.
        allowed_hosts: Further host names under which the server is reached, for example behind a
            reverse proxy. A server on a loopback address refuses all others.

    Raises:
        UsageError: The server would be open to other machines without a token, or the folder does
            not exist.

    Example:
        >>> settings = ServerSettings(face=Path("photo.jpg"), voices=("joe",), llms=("llama",))
        >>> app = create_app(settings, pool)
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Range(0, 65_535)] = 8000
    token: str | None = field(default=None, repr=False)
    face: Path | None = None
    avatars: str | Path | None = None
    voices: tuple[str, ...] = ()
    llms: tuple[str, ...] = ()
    personas: Mapping[str, str] = field(default_factory=dict)
    label: str | None = "AI generated"
    ice_servers: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    socket_timeout_s: float = 300.0
    call_timeout_s: float = 30.0
    max_upload_bytes: PositiveInt = 50_000_000
    max_pixels: PositiveInt = 50_000_000
    max_side: Annotated[int, Range(64)] = 1280
    max_video_s: PositiveFloat = 15.0
    max_audio_s: PositiveFloat = 300.0
    upload_timeout_s: float = 60.0
    upload_memory_bytes: int = 2 * 2**30
    upload_expiry_s: PositiveFloat = 3600.0
    max_uploads: int = 50
    max_text_chars: PositiveInt = 2000
    max_json_bytes: int = 256_000
    max_message_bytes: int = 1_000_000
    body_timeout_s: float = 30.0
    requests_per_s: PositiveFloat = 20.0
    creations_per_min: PositiveFloat = 30.0
    video_runner: VideoRunner | None = field(default=None, repr=False)
    max_video_jobs: PositiveInt = 8
    video_timeout_s: PositiveFloat = 1800.0
    video_expiry_s: PositiveFloat = 3600.0
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.is_local and not self.token:
            raise UsageError(
                f"host={self.host} opens the server to other machines: give token=..., a secret "
                "that clients must send, or host=127.0.0.1"
            )
        if self.avatars is not None and not Path(self.avatars).is_dir():
            raise UsageError(f"avatars={self.avatars} is not a folder of photos and videos")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server with this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def app_state(name: str) -> Any:
    """Return a dependency of FastAPI: an attribute of the application's state."""

    async def read(connection: HTTPConnection) -> Any:
        return getattr(connection.app.state, name)

    return Depends(read)


Settings = Annotated[ServerSettings, app_state("settings")]
"""The settings as a parameter of a route."""
