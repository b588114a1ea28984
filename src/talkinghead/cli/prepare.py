"""`talkinghead prepare`: make a training corpus from raw videos."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from talkinghead.data.preparation.clip_maker import ClipRules
from talkinghead.data.preparation.corpus import PrepareOptions, next_steps, prepare_corpus
from talkinghead.sync.offset import SyncRules
from talkinghead.types import AVSpec

logger = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Prepare the corpus that the configuration describes, and log the next command to run."""
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    input_dir, output_dir, av, detector, rules, sync = (
        values.pop(key) for key in ("input", "output", "av", "detector", "rules", "sync")
    )
    av.pop("_target_")
    options = PrepareOptions(
        detector=detector["name"], rules=ClipRules(**rules), sync=SyncRules(**sync), **values
    )
    manifest = prepare_corpus(input_dir, output_dir, AVSpec.from_dict(av), options)
    for line in next_steps(manifest, output_dir):
        logger.info("%s", line)
