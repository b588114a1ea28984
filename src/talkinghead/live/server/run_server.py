"""Run the live server until it is interrupted."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import uvicorn

from talkinghead.errors import MediaError, UsageError
from talkinghead.live.server.server_app import create_app
from talkinghead.live.server.server_settings import ServerSettings
from talkinghead.live.session.session_pool import SessionPool
from talkinghead.live.session.session_process import SessionFactory
from talkinghead.media.reader import probe

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 3


def server_settings(values: Mapping[str, Any], factory: SessionFactory) -> ServerSettings:
    """Return the settings of a configuration; lists become tuples.

    Raises:
        MediaError: The face is no photo or video.
        UsageError: A value is not allowed.
    """
    known = {field.name for field in fields(ServerSettings)}
    given = {name: value for name, value in values.items() if name in known}
    given |= {"voices": tuple(factory.voices), "llms": tuple(factory.llms)}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    settings = ServerSettings(**given)
    if settings.face is None or not settings.face.is_file():
        raise MediaError(f"face={settings.face} is not a file: give a photo or a short video")
    if not probe(settings.face).has_video:
        raise MediaError(f"face={settings.face} has no picture: give a photo or a short video")
    return settings


def run_server(settings: ServerSettings, pool: SessionPool) -> None:
    """Load the models, print the address, and serve until Ctrl-C or SIGTERM.

    Raises:
        UsageError: The address cannot be used.
        TalkingHeadError: The models cannot be loaded.
    """
    listener = _listen(settings)
    log.info("loading the models")
    if not settings.is_local:
        log.warning(
            "other machines can reach this server: whoever has the token can use the microphone, "
            "the camera images that they upload, and this machine's processors; put a reverse "
            "proxy with HTTPS before it"
        )
    config = uvicorn.Config(
        create_app(settings, pool),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws_max_size=settings.max_message_bytes,
        timeout_graceful_shutdown=_STOP_TIMEOUT_S,
    )
    address = _address_of(*listener.getsockname()[:2])
    server = _Server(config, pool, address)
    server.run(sockets=[listener])
    if not server.started:
        raise UsageError("the server could not be started; the log states the reason")


def _address_of(host: str, port: int) -> str:
    """Return the address of the page for a listening IP address and port."""
    if host == "127.0.0.1":
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """A server that ends the sessions first, so that their WebSockets are closed with a reason."""

    def __init__(self, config: uvicorn.Config, pool: SessionPool, address: str) -> None:
        super().__init__(config)
        self._pool, self._address = pool, address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # The application would start the pool too, but uvicorn logs its errors with a traceback.
        try:
            await self._pool.start()
        except BaseException:
            await self._pool.close()
            raise
        await super().startup(sockets)
        if self.started:
            log.info("open %s in a browser; Ctrl-C ends the server", self._address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._pool.close()
        await super().shutdown(sockets)


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":  # There, the option would allow several servers at one port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"host={settings.host} port={settings.port} cannot be used ({reason}): choose "
            "another port=, or end the program that uses it"
        ) from error
    return listener
