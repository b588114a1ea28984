"""`talkinghead pseudo_label`: other speech to learn from, with the lips that Whisper gives it."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from talkinghead.training.pseudo_labels import PseudoLabelOptions, pseudo_label
from talkinghead.types import AVSpec


def main(cfg: DictConfig) -> None:
    """Makes the corpus that `conf/pseudo_label.yaml` describes."""
    options = PseudoLabelOptions(**cfg.options)
    voices = {str(name): instantiate(tts) for name, tts in (cfg.voices or {}).items()}
    av: Any = OmegaConf.to_container(cfg.av, resolve=True)
    spec = AVSpec.from_dict(av)
    pseudo_label(cfg.book, cfg.output, spec, voices, instantiate(cfg.lip_prior), options)
