"""`talkinghead personalise`: adapt the lip motion to a person, from a video of that person."""

from __future__ import annotations

from omegaconf import DictConfig

from talkinghead.cli.shared.builders import build_predictor, fields_of
from talkinghead.errors import UsageError
from talkinghead.predict.personalisation import PersonaliseOptions, personalise


def main(cfg: DictConfig) -> None:
    """Adapt to the video as configured by `conf/personalise.yaml`, and write the adaptation."""
    if missing := [f"{key}=..." for key in ("video", "output") if cfg[key] is None]:
        raise UsageError(
            f"{' and '.join(missing)} must be given: video=me.mp4 output=me.safetensors"
        )
    options = PersonaliseOptions(**fields_of(PersonaliseOptions, cfg))
    personalise(build_predictor(cfg), cfg.video, cfg.output, options)
