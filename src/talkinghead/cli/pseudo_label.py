"""`talkinghead pseudo_label`: label speech recordings with predicted lip motion."""

from __future__ import annotations

from hydra.utils import instantiate
from omegaconf import DictConfig

from talkinghead.training.pseudo_labels import pseudo_label


def main(cfg: DictConfig) -> None:
    """Make a corpus as configured by `conf/pseudo_label.yaml`."""
    spec, lip_prior = instantiate(cfg.av), instantiate(cfg.lip_prior) or None
    pseudo_label(cfg.input, cfg.output, spec, lip_prior, cfg.spread_px)
