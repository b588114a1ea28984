"""`talkinghead prepare`: make a training corpus from raw videos."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.data.preparation.clip_maker import ClipRules
from talkinghead.data.preparation.corpus import PrepareOptions, next_steps, prepare_corpus
from talkinghead.predict.audio.lip_priors.lip_prior import predict_lip_motion
from talkinghead.sync.lip_offset import LipOffsetRules
from talkinghead.sync.offset import SyncRules
from talkinghead.types import AVSpec

logger = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Prepare the corpus that the configuration describes, and log the next command to run."""
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    keys = ("input", "output", "av", "detector", "rules", "sync")
    input_dir, output_dir, av, detector, rules, sync = map(values.pop, keys)
    av.pop("_target_")
    spec = AVSpec.from_dict(av)
    lip_prior = instantiate(values.pop("lip_prior")) or None
    lip_offset = LipOffsetRules(**values.pop("lip_offset"))
    options = PrepareOptions(
        detector=detector["name"],
        rules=ClipRules(**rules),
        sync=SyncRules(**sync),
        lip_offset=lip_offset if lip_prior else None,
        **values,
    )
    predict_lips = partial(predict_lip_motion, lip_prior, spec=spec) if lip_prior else None
    manifest = prepare_corpus(input_dir, output_dir, spec, options, predict_lips)
    logger.info("%s", "\n".join(next_steps(manifest, output_dir)))
