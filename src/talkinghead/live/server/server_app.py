"""The live server as a FastAPI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection

import talkinghead
from talkinghead.live.server.access import AccessControl
from talkinghead.live.server.avatar_library import AvatarInfo, AvatarLibrary, Library
from talkinghead.live.server.error_responses import install_error_handlers, responses_for
from talkinghead.live.server.routes import (
    avatars_api,
    realtime_api,
    sessions_api,
    stream_api,
    videos_api,
)
from talkinghead.live.server.server_settings import ServerSettings, Settings
from talkinghead.live.server.uploads import UploadChecker
from talkinghead.live.server.video_jobs import VideoJobs
from talkinghead.live.session.session_pool import SessionPool
from talkinghead.media.atomic_file import temporary_folder
from talkinghead.predict.source.head.expression.emotions import EMOTIONS

log = logging.getLogger(__name__)

_STATIC = Path(__file__).parent / "static"
_TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
_API_PAGE = _TEMPLATES.get_template("api_page.html.jinja")
_CLEANING_INTERVAL_S = 30.0

_DESCRIPTION = """\
Live avatars that speak: sessions by WebRTC, streams by WebSocket, and rendered videos.

WebSockets are not part of this list: `/v1/sessions/{id}/events`, `/v1/stream` and `/v1/realtime`
are described in docs/live-server.md. If the server has a token, send `Authorization: Bearer TOKEN`.
Errors are `{"error": {"type": ..., "message": ...}}`.
"""

router = APIRouter()


class Limits(BaseModel):
    """Limits of requests."""

    max_pixels: int
    max_video_s: float
    max_audio_s: float
    max_text_chars: int
    max_persona_chars: int
    max_sessions: int
    max_duration_s: float
    idle_timeout_s: float


class Config(BaseModel):
    """Configuration of the server that a page needs."""

    voices: list[str] = Field(examples=[["joe"]])
    llms: list[str] = Field(examples=[["llama", "echo"]])
    personas: dict[str, str]
    emotions: list[str] = Field(examples=[["neutral", "happy"]])
    avatars: list[AvatarInfo]
    ice_servers: list[dict[str, Any]]
    max_upload_bytes: int
    limits: Limits
    label: str | None = Field(examples=["AI generated"])
    can_render_videos: bool


def create_app(settings: ServerSettings, pool: SessionPool) -> FastAPI:
    """Return the application; it starts the pool, and closes it at the end.

    Example:
        >>> uvicorn.run(create_app(settings, pool), host=settings.host, port=settings.port)
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with temporary_folder() as folder:
            checker = UploadChecker(settings)
            app.state.avatars = AvatarLibrary(settings, checker, Path(folder))
            app.state.videos = videos = VideoJobs(settings, checker, Path(folder))
            cleaning = asyncio.create_task(_remove_expired(app))
            await pool.start()
            try:
                yield
            finally:
                cleaning.cancel()
                await pool.close()
                await asyncio.to_thread(videos.close)

    app = FastAPI(
        title="talkinghead",
        version=talkinghead.__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.settings, app.state.pool = settings, pool
    app.state.registry = registry = CollectorRegistry()
    install_error_handlers(app)
    for module in (sessions_api, stream_api, realtime_api, videos_api, avatars_api):
        app.include_router(module.router)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=_STATIC, check_dir=False), "static")
    app.add_middleware(AccessControl, settings=settings, count=_count_requests(registry))
    registry.register(_Gauges(app))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


async def _remove_expired(app: FastAPI) -> None:
    """Delete expired uploads and videos until the server stops."""
    while True:
        await asyncio.sleep(_CLEANING_INTERVAL_S)
        try:
            app.state.avatars.remove_expired()
            await app.state.videos.remove_expired()
        except Exception:
            log.exception("expired files were not deleted; the next attempt follows")


def _count_requests(registry: CollectorRegistry) -> Callable[[str, str, int], None]:
    counter = Counter(
        "talkinghead_requests", "Responses.", ["method", "route", "status"], registry=registry
    )
    return lambda method, route, status: counter.labels(method, route, status).inc()


class _Gauges(Collector):
    """Numbers of sessions and videos at the time of a scrape."""

    def __init__(self, app: FastAPI) -> None:
        self._state = app.state

    def describe(self) -> Iterator[Metric]:
        """Return no metric descriptions, so that the registration does not call `collect`."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        pool: SessionPool = self._state.pool
        sessions = GaugeMetricFamily("talkinghead_sessions", "Running sessions.")
        sessions.add_metric([], len(pool.sessions))
        limit = GaugeMetricFamily("talkinghead_max_sessions", "Maximum number of sessions.")
        limit.add_metric([], pool.options.max_sessions)
        videos = GaugeMetricFamily("talkinghead_videos", "Video jobs by state.", labels=["state"])
        for state, count in self._state.videos.count().items():
            videos.add_metric([state], count)
        yield from (sessions, limit, videos)


@router.get("/v1/config", tags=["server"], responses=responses_for())
async def get_config(settings: Settings, library: Library, pool: sessions_api.Pool) -> Config:
    """Return the choices and the limits of the server."""
    return Config(
        voices=list(settings.voices),
        llms=list(settings.llms),
        personas=dict(settings.personas),
        emotions=list(EMOTIONS),
        avatars=await library.list(),
        ice_servers=[dict(server) for server in settings.ice_servers],
        max_upload_bytes=settings.max_upload_bytes,
        limits=Limits(
            max_pixels=settings.max_pixels,
            max_video_s=settings.max_video_s,
            max_audio_s=settings.max_audio_s,
            max_text_chars=settings.max_text_chars,
            max_persona_chars=sessions_api.MAX_PERSONA_CHARS,
            max_sessions=pool.options.max_sessions,
            max_duration_s=pool.options.max_duration_s,
            idle_timeout_s=pool.options.idle_timeout_s,
        ),
        label=settings.label,
        can_render_videos=settings.video_runner is not None,
    )


@router.get("/v1/voices", tags=["server"], responses=responses_for())
async def list_voices(settings: Settings) -> list[str]:
    """Return the names of the voices."""
    return list(settings.voices)


@router.get("/healthz", tags=["server"])
async def get_health() -> dict[str, str]:
    """Return the status of the server; no token is needed."""
    return {"status": "ok"}


@router.get("/metrics", tags=["server"], responses=responses_for(), response_class=Response)
async def get_metrics(connection: HTTPConnection) -> Response:
    """Return metrics in the text format of Prometheus."""
    data = generate_latest(connection.app.state.registry)
    return Response(data, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/docs", include_in_schema=False)
async def get_docs(connection: HTTPConnection) -> HTMLResponse:
    """Return the list of routes as a page that loads no files from other servers."""
    schema = connection.app.openapi()

    def resolve(part: dict[str, Any]) -> dict[str, Any]:
        """Return the schema that a reference names."""
        name = part.get("$ref", "").rpartition("/")[2]
        return schema["components"]["schemas"].get(name, part)

    return HTMLResponse(_API_PAGE.render(schema=schema, resolve=resolve))


@router.get("/", include_in_schema=False)
async def get_page() -> FileResponse:
    """Return the page."""
    return FileResponse(_STATIC / "index.html")
