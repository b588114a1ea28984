"""`talkinghead personalise`: adapt the lip motion to a person, from a video of that person."""

from __future__ import annotations

from omegaconf import DictConfig

from talkinghead.cli.shared.builders import build_predictor, fields_of
from talkinghead.predict.personalisation import PersonaliseOptions, personalise


def main(cfg: DictConfig) -> None:
    """Adapt to the video as configured by `conf/personalise.yaml`, and write the adaptation."""
    options = PersonaliseOptions(**fields_of(PersonaliseOptions, cfg))
    personalise(build_predictor(cfg), cfg.video, cfg.output, options)
