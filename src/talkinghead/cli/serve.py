"""`talkinghead serve`: serve a live face as a web page and an API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from talkinghead.cli.shared.builders import build_job_runner, build_session_factory, fields_of
from talkinghead.cli.shared.termination import was_terminated
from talkinghead.errors import DependencyError
from talkinghead.live.session.session_pool import PoolOptions, SessionPool
from talkinghead.paths import demo_face
from talkinghead.runtime.export.background_export import exporting_model


def main(cfg: DictConfig) -> None:
    """Serve the page and the API as configured by `conf/serve.yaml`, until Ctrl-C."""
    try:
        from talkinghead.live.server.run_server import run_server, server_settings
    except ImportError as error:
        raise DependencyError(
            f"the live server needs {error.name}: pip install 'talkinghead[live]'"
        ) from error
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    factory = build_session_factory(cfg)
    values["face"] = Path(cfg.face or demo_face())
    values["video_runner"] = build_job_runner(cfg, factory)
    settings = server_settings(values, factory)
    options = PoolOptions(**fields_of(PoolOptions, cfg))
    try:
        with exporting_model(cfg.checkpoint, cfg.backend, cfg.device, cfg.precision):
            run_server(settings, SessionPool(factory, options))
    except KeyboardInterrupt:
        # The server ends its sessions and then passes the signal on. SIGTERM is its regular end.
        if not was_terminated():
            raise
