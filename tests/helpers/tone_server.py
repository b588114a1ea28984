"""Live server with sessions that need no weights, started with `python -m`."""

import logging
import sys
from pathlib import Path

from helpers.live_parts import tone_factory
from helpers.live_sessions import FakeRunner
from talkinghead.live.server.run_server import run_server
from talkinghead.live.server.server_settings import ServerSettings
from talkinghead.live.session.session_pool import PoolOptions, SessionPool

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    factory = tone_factory()
    settings = ServerSettings(
        port=int(sys.argv[1]),
        face=Path(sys.argv[2]),
        voices=tuple(factory.voices),
        llms=tuple(factory.llms),
        video_runner=FakeRunner(),
        requests_per_s=1e6,
        creations_per_min=1e6,
    )
    run_server(settings, SessionPool(factory, PoolOptions(max_sessions=4)))
