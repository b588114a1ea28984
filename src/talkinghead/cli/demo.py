"""`talkinghead demo`: serve a web page that makes talking videos."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hydra.errors import InstantiationException
from omegaconf import DictConfig

from talkinghead.cli.shared.builders import build_predictor, build_speaker, fields_of
from talkinghead.errors import DependencyError
from talkinghead.integrations.demo_renderer import DemoOptions
from talkinghead.integrations.gradio_demo import GradioDemo
from talkinghead.predict.audio.audio_source import SpeechStream

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Serve the page as configured by `conf/demo.yaml`, until Ctrl-C."""
    options = DemoOptions(**fields_of(DemoOptions, cfg))
    demo = GradioDemo(build_predictor(cfg), _build_speaker(cfg), options)
    demo.launch(cfg.host, cfg.port, cfg.password)


def _build_speaker(cfg: DictConfig) -> Callable[[str], SpeechStream] | None:
    """Return a function that speaks a text; None if the voice is not installed."""
    try:
        return build_speaker(cfg)
    except InstantiationException as error:
        if not isinstance(error.__cause__, DependencyError):
            raise
        log.warning("the page accepts audio, but no text: %s", error.__cause__)
        return None
