"""`talkinghead prepare`: raw videos to a corpus."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from talkinghead.data.clip_maker import ClipRules
from talkinghead.data.prepare import PrepareOptions, prepare_corpus
from talkinghead.types import AVSpec


def main(cfg: DictConfig) -> None:
    """Prepares the corpus that `conf/prepare.yaml` describes."""
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    input_dir, output_dir, av, detector, rules = (
        values.pop(key) for key in ("input", "output", "av", "detector", "rules")
    )
    av.pop("_target_")
    options = PrepareOptions(detector=detector["name"], rules=ClipRules(**rules), **values)
    prepare_corpus(input_dir, output_dir, AVSpec.from_dict(av), options)
