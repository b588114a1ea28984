"""`talkinghead pseudo_label`: label speech recordings with predicted lip motion."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.training.pseudo_labels import pseudo_label
from talkinghead.types import AVSpec


def main(cfg: DictConfig) -> None:
    """Make the corpus that `conf/pseudo_label.yaml` describes."""
    av: Any = OmegaConf.to_container(cfg.av, resolve=True)
    spec, lip_prior = AVSpec.from_dict(av), instantiate(cfg.lip_prior)
    pseudo_label(cfg.input, cfg.output, spec, lip_prior, cfg.spread_px)
